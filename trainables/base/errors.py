"""The errors that a user can cause. This module imports nothing of this project."""


class SearchError(Exception):
    """The base of the errors of the Python API: `except search.SearchError` catches each of them.

    >>> issubclass(search.InputError, search.SearchError) and issubclass(search.InputError, ValueError)
    True
    """


class InputError(SearchError, ValueError):
    """An argument, a file or a setting cannot be used. The message names the place, the value and what is allowed.

    >>> search.open("none")
    Traceback (most recent call last):
    trainables.base.errors.InputError: none: no search of that name in ... (there: mine)
    """


class Damaged(Exception):
    """A file is not what was written to it. `file` is its name, `why` a part of a sentence."""

    def __init__(self, file: str, why: str) -> None:
        super().__init__(file, why)  # as these it travels between processes
        self.file, self.why = file, why

    def __str__(self) -> str:
        return f"{self.file} is damaged: {self.why}"


def first_line(error: BaseException) -> str:
    """The first line of the message of an error; the name of its class where it has no message."""
    return (str(error).strip() or type(error).__name__).split("\n")[0]


def one_line(text: object, most: int = 200) -> str:
    """What a file says, for a message: on one line, without control characters, at most so long."""
    plain = "".join(sign if sign.isprintable() else " " for sign in str(text)[: 10 * most])
    return " ".join(plain.split())[:most]
