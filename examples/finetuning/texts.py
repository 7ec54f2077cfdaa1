"""Small data for both trainings: reviews, and whether they praise. Put yours in their place."""

import random

_PRAISE = ("great", "lovely", "perfect", "brilliant", "charming", "superb")
_BLAME = ("dull", "awful", "broken", "boring", "clumsy", "poor")
_THINGS = ("film", "book", "song", "meal", "room", "game", "phone", "coat")


def reviews(count, seed):
    """Texts with the label 1 for praise, else 0."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    found = []
    for _ in range(count):
        label = draw.randrange(2)
        word, thing = draw.choice(_PRAISE if label else _BLAME), draw.choice(_THINGS)
        found.append((f"the {thing} was {word} and i would {'buy' if label else 'return'} it", label))
    return found


TRAIN, VALIDATION = reviews(96, seed=1), reviews(48, seed=2)
