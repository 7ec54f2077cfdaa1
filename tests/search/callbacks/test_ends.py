"""A whole search sends messages, runs its command at the end, and keeps no secret of an address."""

import json
import os
import signal

import pytest

from search.callbacks import messages
from search.callbacks.on_end import run_on_end
from tests.receiver import receiver
from tests.search.core.test_redaction import secret_in
from tests.search.runtime.test_search import search_in

TOY = ["run", "toy", "--trials", "2", "--epochs", "1"]


def secret(one) -> str:
    return one.address.rpartition("/")[2]


def test_search_sends_its_end_and_keeps_no_secret(here):
    with receiver() as one:
        output = here.call(*TOY, "--name", "s", "--notify", one.address, "--no-retrain")
        assert one.events()[-1] == "finished" and one.got[-1]["best"]["value"] is not None
        assert not secret_in(here.folder, secret(one)) and secret(one) not in output
        record = json.loads((here.folder / "mlruns" / "searches" / "s" / "search.json").read_text())
        assert record["config"]["search"]["notify"] == [one.address.partition("/hook")[0] + "/***"]
        again = here.call("resume", "s", "--trials", "+1")
        assert "its secret is not stored; give it again" in again
        count = len(one.got)
        here.call("resume", "s", "--trials", "+1", "--notify", one.address)
        assert one.events()[count:][-1] == "finished"
        assert not secret_in(here.folder, secret(one))


def test_address_of_an_environment_variable_is_stored_by_its_name(here):
    with receiver() as one:
        here.call(*TOY, "--name", "s", "--notify", "env:HOOK", "--no-retrain", HOOK=one.address)
        assert one.events()[-1] == "finished"
        count = len(one.got)
        here.call("resume", "s", "--trials", "+1", HOOK=one.address)
        assert len(one.got) > count
    missing = here.call(*TOY, "--name", "t", "--notify", "env:NO_SUCH_HOOK", code=2)
    assert "there is no environment variable NO_SUCH_HOOK" in missing
    assert "expected an address that begins with https://" in here.call(*TOY, "--notify", "ftp://x", code=2)


def test_dry_run_shows_no_secret(here):
    output = here.call(*TOY, "--dry-run", "--notify", "https://example.org/hook/abcdefghijkl")
    assert "https://example.org/***" in output and "abcdefghijkl" not in output


@pytest.mark.parametrize("codes", [(), (500,) * 50], ids=["never answers", "fails"])
def test_search_with_an_address_that_does_not_work_ends_as_without_it(here, monkeypatch, codes):
    """The receiver answers only after the search has ended: the search cannot have waited for it."""
    monkeypatch.setattr(messages, "PATIENCE", 0.2)
    with receiver(*codes) as one:
        if not codes:
            one.block.clear()
        output = here.call(*TOY, "--name", "s", "--notify", one.address, "--no-retrain")
        assert one.requests and not one.got
        assert output.count("notify http://127.0.0.1") == 1, "one warning"
        assert "best: trial " in output


def test_slow_address_gets_its_messages_and_no_trial_waits_for_it(here, monkeypatch):
    """It answers the first message only when the last trial has ended."""
    end = messages.Messenger.end
    with receiver() as one:
        one.block.clear()

        def answer_now(*arguments):
            assert not one.got
            one.block.set()
            end(*arguments)

        monkeypatch.setattr(messages.Messenger, "end", answer_now)
        output = here.call(*TOY, "--name", "s", "--notify", one.address, "--no-retrain")
        assert sorted(one.events()) == ["best", "finished"] and "notify http" not in output


def test_command_at_the_end_gets_the_result_and_may_use_the_search(here):
    script = 'echo "$SEARCH_NAME $SEARCH_STATUS $SEARCH_METRIC $SEARCH_TRIAL $SEARCH_BEST" > told; exit 3'
    output = here.call(*TOY, "--name", "s", "--no-retrain", "--on-end", script)
    name, status, metric, trial, best = (here.folder / "told").read_text().split()
    assert (name, status, metric) == ("s", "finished", "val_score") and int(trial) in (0, 1) and float(best) > -10
    assert "on-end: the command ended with exit code 3" in output
    (here.folder / "told").unlink()
    here.call("resume", "s", "--trials", "+1")
    assert (here.folder / "told").exists(), "the setting is stored"


def test_failed_search_sends_its_failure_and_runs_its_command(here):
    with receiver() as one:
        faults = ("--set", "data.fault=always", "--set", "search.max_failures=0")
        here.call(
            *TOY, "--name", "s", *faults, "--notify", one.address, "--on-end", "echo $SEARCH_STATUS > told", code=1
        )
    assert one.events() == ["failed"] and one.got[0]["failure"]
    assert (here.folder / "told").read_text() == "failed\n"


@pytest.mark.parametrize(
    ("command", "limit", "lines"),
    [
        ("echo out; echo err >&2", 60, ["on-end: out", "on-end: err"]),
        ("printf '\\033[31mred'", 60, ["on-end: \\x1b[31mred"]),
        ("sleep 600 & sleep 600", 0.2, ["on-end: the command was killed; it may take 0.2 s"]),
        ("sleep 600 & true", 60, []),
        ("exit 4", 60, ["on-end: the command ended with exit code 4"]),
        ("seq 100 | sed s/^/n/", 60, [f"on-end: n{number}" for number in range(81, 101)]),
    ],
    ids=["output", "escapes", "limit", "background", "exit code", "long output"],
)
def test_output_exit_code_and_limit_of_the_command(tmp_path, command, limit, lines):
    made, said = search_in(tmp_path), []
    run_on_end(command, made_store(made), made.folder, "finished", made.state, said.append, limit)
    assert said == lines


def made_store(made):
    from search.core.store import Store

    return Store(made.folder.path.parents[1])


def test_interrupt_ends_the_command(tmp_path):
    made = search_in(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_on_end(f"kill -INT {os.getpid()}; sleep 600", made_store(made), made.folder, "finished", made.state, print)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
