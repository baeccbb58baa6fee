"""What building a model says when it can't: the error of a file's content, and an exception in a line."""

from __future__ import annotations


class FileError(Exception):
    """A file of weights can't be used; the message goes on after the file's name: "is empty; expected …"."""


def first_line(error: Exception) -> str:
    """What ``error`` says, in a line; where it says nothing, what it is called."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
