"""The errors of the Python API.

    SearchError                     the base of all
      InputError (a ValueError)     an argument, a file or a setting cannot be used
      TrainingError                 a training function does what a search cannot continue with

The message of an `InputError` names the place, the value and what is allowed. It is one line, without a secret of an
address. An error of the user's own training function does not reach the caller: the trial fails, and
`search.open(NAME).trials()` shows its outcome.
"""

from trainables.base.errors import InputError, SearchError
from trainables.loops.errors import TrainingError

__all__ = ["InputError", "SearchError", "TrainingError"]
