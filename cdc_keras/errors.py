"""The error that is meant for people."""


class UserError(Exception):
    """One clear sentence for the person at the keyboard; train.py and evaluate.py print it and exit with status 1."""
