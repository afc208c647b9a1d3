"""The one exception that means: the input is at fault, not the program."""


class VlaeError(Exception):
    """Bad input, told in one line; the command line prints it and exits with 2."""
