"""A web address gets messages about a search, which never waits for it."""

import json
import threading
import time

import pytest

from search.callbacks import messages
from search.callbacks.messages import Messenger, content, in_words
from search.core.redaction import conceal, redacted
from tests.receiver import receiver
from tests.search.runtime.test_search import result, search_in

SLACK = "https://hooks.slack.com/services/T0/B0/abcdefghijkl"
DISCORD = "https://discord.com/api/webhooks/1/abcdefghijkl"


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(messages, "PAUSES", (0.01, 0.01))


def wait_for(ready) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.01)


def searched(folder, *addresses: str):
    """A search whose messages go to the addresses, its messenger, and the lines that it said."""
    made, said = search_in(folder, "search.scheduler=none"), []
    messenger = Messenger("s", "windows", addresses, said.append)
    made.listeners.append(messenger)
    made.record({"event": "session"})
    return made, messenger, said


def report(made, accuracy: float) -> None:
    trial = made.propose()
    made.report([result(trial.number, 1, accuracy)], "cpu")


def test_end_and_new_bests_are_sent_with_value_and_parameters(tmp_path, quick):
    with receiver() as one:
        made, messenger, said = searched(tmp_path, one.address)
        report(made, 0.5)
        wait_for(lambda: one.got)
        messenger.end("finished", made.state)
        messenger.close(30)
    assert one.events() == ["best", "finished"] and not said
    best, end = one.got
    assert best["search"] == "s" and best["task"] == "windows" and best["mode"] == "max"
    assert best["best"]["value"] == 0.5 and best["best"]["trial"] == 0 and best["best"]["epoch"] == 1
    assert best["best"]["params"].keys() == made.state.trials[0].params.keys()
    assert end["trials"] == 1 and end["test"] is None


def test_only_the_latest_of_several_new_bests_is_sent_after_the_pause(tmp_path, monkeypatch):
    monkeypatch.setattr(messages, "INTERVAL", 0.3)
    with receiver() as one:
        made, messenger, _ = searched(tmp_path, one.address)
        report(made, 0.1)
        wait_for(lambda: len(one.got) == 1)
        for accuracy in (0.2, 0.3, 0.25, 0.4):
            report(made, accuracy)
        wait_for(lambda: len(one.got) == 2)
        messenger.end("finished", made.state)
        messenger.close(30)
    assert [message["best"]["value"] for message in one.got] == [0.1, 0.4, 0.4]


def test_best_of_an_earlier_session_is_not_sent_again(tmp_path):
    with receiver() as one:
        made, _, _ = searched(tmp_path)
        report(made, 0.5)
        again = Messenger("s", "windows", [one.address], print)
        made.listeners = [again]
        made.record({"event": "session"})
        report(made, 0.4)
        again.end("finished", made.state)
        again.close(30)
    assert one.events() == ["finished"]


@pytest.mark.parametrize(
    ("codes", "events", "warnings"), [((503, 503), ["finished"], 0), ((503,) * 9, [], 1), ((404,), [], 1)]
)
def test_failing_address_is_tried_again_and_named_once(tmp_path, quick, codes, events, warnings):
    with receiver(*codes) as one:
        made, messenger, said = searched(tmp_path, one.address)
        messenger.end("finished", made.state)
        messenger.close(30)
    assert one.events() == events and len(said) == warnings
    assert one.requests == (1 if codes == (404,) else 3)
    assert all("secret-path" not in line and "http://127.0.0.1:" in line for line in said)


def test_search_and_its_end_do_not_wait_for_an_address_that_never_answers(tmp_path, monkeypatch):
    """The receiver answers only after the search has ended."""
    monkeypatch.setattr(messages, "INTERVAL", 0.0)
    with receiver() as one:
        one.block.clear()
        made, messenger, said = searched(tmp_path, one.address)
        for accuracy in (0.1, 0.2, 0.3):
            report(made, accuracy)
        messenger.end("finished", made.state)
        messenger.close(0.2)
        assert not one.got and len(said) == 1 and "did not answer in time" in said[0]
        assert sum(thread.name == "messages" for thread in threading.enumerate()) <= 2
        one.block.set()
        wait_for(lambda: "finished" in one.events())


def test_nobody_listens_at_the_address(tmp_path, quick):
    made, messenger, said = searched(tmp_path, "http://127.0.0.1:9/x")
    report(made, 0.5)
    messenger.end("failed", made.state)
    messenger.close(30)
    assert len(said) == 1 and said[0].startswith("notify http://127.0.0.1:9/***: ")


MESSAGE = {
    "event": "best", "search": "s", "task": "t", "metric": "val_loss", "mode": "min", "test": {"loss": 0.25},
    "best": {"value": 0.5, "trial": 3, "epoch": 2, "params": {"kind": "<!channel> @everyone \x1b[31m", "lr": 0.001}},
    "trials": 4, "failure": None, "time": 1,
}  # fmt: skip


def test_slack_and_discord_get_their_form_and_values_call_nobody():
    slack, discord = json.loads(content(SLACK, MESSAGE)), json.loads(content(DISCORD, MESSAGE))
    assert slack.keys() == {"text"} and "&lt;!channel&gt;" in slack["text"]
    assert discord.keys() == {"content", "allowed_mentions"} and discord["allowed_mentions"] == {"parse": []}
    assert json.loads(content("https://hooks.slack.com.example.org/x", MESSAGE)) == MESSAGE
    assert "\x1b" not in in_words(MESSAGE)
    assert in_words(MESSAGE).startswith("search s has a new best: val_loss 0.5000 (trial 3, epoch 2; kind")
    long = {**MESSAGE, "best": {**MESSAGE["best"], "params": {"x": "y" * 9000}}}
    assert len(json.loads(content(DISCORD, long))["content"]) == messages.LONGEST


def test_figures_that_json_has_no_word_for_are_null(tmp_path):
    made, messenger, _ = searched(tmp_path, "http://127.0.0.1:9/")
    made.record({"event": "trial", "number": 0, "params": {"x": float("inf"), "y": [float("nan")]}, "seed": 0})
    made.state.trials[0].take(1, {"val_accuracy": float("inf")}, made.objective)
    best = messenger._message("best", made.state, made.state.trials[0])["best"]
    assert json.loads(json.dumps(best, allow_nan=False))["params"] == {"x": None, "y": [None]} and best["value"] is None


@pytest.mark.parametrize("address", [SLACK, DISCORD, "https://example.org/hook/abcdefghijkl?x=1", "http://ann:pw@host"])
def test_address_is_hidden_in_every_text(address):
    assert conceal(address).endswith("/***") and "abc" not in conceal(address) and "pw" not in conceal(address)
    assert "abcdefghijkl" not in redacted(f"POST {address} failed") and address not in redacted(f"x {address}")


@pytest.mark.parametrize("address", ["https://example.org", "http://127.0.0.1:8000/", "env:NAME", "https://h/***"])
def test_address_without_a_secret_stays(address):
    assert conceal(address) == address
    assert redacted(f"to {address}") == f"to {address}"


def test_addresses_of_slack_and_discord_are_hidden_though_nobody_named_them():
    for address in (
        "https://hooks.slack.com/services/T9/B9/zyxwvutsrq",
        "https://discord.com/api/webhooks/9/zyxwvutsrq",
    ):
        assert "zyxwvutsrq" not in redacted(f"curl {address}")
