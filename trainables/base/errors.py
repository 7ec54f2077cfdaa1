"""Errors of users and of damaged files. This module imports no other module of the project."""


class SearchError(Exception):
    """The base of the errors of the Python API: `except search.SearchError` catches each of them.

    >>> issubclass(search.InputError, search.SearchError) and issubclass(search.InputError, ValueError)
    True
    """


class InputError(SearchError, ValueError):
    """The user's input cannot be used. The message names the place, the value and the allowed values.

    >>> search.open("none")
    Traceback (most recent call last):
    trainables.base.errors.InputError: none: no search of that name in ... (there: mine)
    """


class Damaged(Exception):
    """The content of a file has changed since it was written.

    Attributes:
        file: the name of the file.
        why: the reason, as a part of a sentence.
    """

    def __init__(self, file: str, why: str) -> None:
        super().__init__(file, why)  # pickle passes these arguments to the constructor again
        self.file, self.why = file, why

    def __str__(self) -> str:
        return f"{self.file} is damaged: {self.why}"


def first_line(error: BaseException) -> str:
    """The first line of the message of an error; the name of its class where it has no message."""
    return (str(error).strip() or type(error).__name__).split("\n")[0]


def one_line(text: object, most: int = 200) -> str:
    """Text from a file, for a message: one line without control characters, at most `most` characters."""
    plain = "".join(sign if sign.isprintable() else " " for sign in str(text)[: 10 * most])
    return " ".join(plain.split())[:most]
