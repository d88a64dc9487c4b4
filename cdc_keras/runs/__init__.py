"""Run folders: training into one, going on with it, scoring it, and the trained models they hold."""
