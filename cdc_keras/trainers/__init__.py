"""How the extractor and the classifiers learn (Sec. 2, A.1): losses, optimizers, and one training step for each."""
