"""Callbacks of users: an error in a callback does not end the search."""

from search.runtime.callbacks import callback_listeners


def test_callback_that_raises_is_named_and_called_no_more():
    lines, calls = [], []

    def broken(event, state):
        calls.append(event)
        raise ValueError("no such plot")

    (listener,) = callback_listeners([broken], lines.append)
    listener({"event": "session"}, None)
    listener({"event": "session"}, None)
    assert len(calls) == 1 and lines == ["callback broken: ValueError: no such plot; it is not called again"]
