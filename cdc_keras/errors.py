"""The errors that are meant for people."""


class UserError(ValueError):
    """One clear sentence for the person at the keyboard; a command prints it and exits with status 1."""


class UsageError(UserError):
    """The command line itself is wrong; a command prints the sentence and exits with status 2."""
