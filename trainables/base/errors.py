"""The error that a user can cause. Nothing below imports anything else of this project."""


class InputError(Exception):
    """What the user gave cannot be used. The message names the place, the value and what is allowed.

    >>> search.open("none")
    Traceback (most recent call last):
    trainables.base.errors.InputError: none: no search of that name in ... (there: mine)
    """
