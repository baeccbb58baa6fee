"""Errors of building a model: the error of a file's content, and an exception in a line."""

from __future__ import annotations


class FileError(Exception):
    """A file of weights can't be used; the message goes on after the file's name: "is empty; expected …"."""


def first_line(error: BaseException) -> str:
    """The message of ``error`` in a line; its class's name if it has no message."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
