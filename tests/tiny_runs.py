"""Settings of runs that train in seconds, for tests of what a run does and not of what it learns."""

import dataclasses

from cdc_keras.config import RunConfig

EXTRACTOR = RunConfig(train_limit=64, batch_size=16, epochs=1, validation_fraction=0.3)
CLASSIFIER = dataclasses.replace(EXTRACTOR, task="classifier", network="resnet8", warmup_epochs=0.1)
