import json
import math
import re
import subprocess
import sys

import pytest

from search.core.events import VERSION
from search.core.journal import Journal, read_events
from search.core.state import SearchState
from trainables.base.errors import InputError
from trainables.base.task import Objective


def test_events_come_back_to_the_last_bit(tmp_path):
    journal = Journal(tmp_path / "j.jsonl")
    values = {"a": 0.1 + 0.2, "b": float("inf"), "c": 5e-324, "d": float("nan")}
    journal.append(trial(0), {**result(0, 1, 0.5), "metrics": values})
    journal.close()
    _, event = read_events(tmp_path / "j.jsonl")
    assert {k: v for k, v in event["metrics"].items() if k != "d"} == {k: v for k, v in values.items() if k != "d"}
    assert math.isnan(event["metrics"]["d"])


def test_line_that_a_kill_left_unfinished_is_dropped(tmp_path):
    path = tmp_path / "j.jsonl"
    journal = Journal(path)
    journal.append({"event": "session"})
    journal.close()
    with path.open("ab") as file:
        file.write(b'{"event": "trial", "nu')
    journal = Journal(path)
    journal.append({"event": "compared"})
    journal.close()
    assert [e["event"] for e in read_events(path)] == ["session", "compared"]


def test_damaged_line_is_named(tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_bytes(b'{"event": "session", "time": 1}\nnonsense\n')
    with pytest.raises(InputError, match="line 2 is damaged"):
        list(read_events(path))


def test_clock_that_is_set_back_moves_no_event_back(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "j.jsonl")
    monkeypatch.setattr("search.core.journal.time.time", lambda: 1000.0)
    (first,) = journal.append({"event": "session"})
    monkeypatch.setattr("search.core.journal.time.time", lambda: 10.0)
    assert journal.append({"event": "session"})[0]["time"] == first["time"]


def test_two_processes_cannot_run_one_search(tmp_path):
    journal = Journal(tmp_path / "s" / "j.jsonl")
    code = f"from pathlib import Path; from search.core.journal import Journal; Journal(Path({str(journal.path)!r}))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "s: this search is running in another process" in other.stderr


def state(*events):
    made = SearchState(Objective("score", "max"))
    for time, event in enumerate(events):
        made.apply({"time": time, **event})
    return made


def trial(number):
    return {"event": "trial", "number": number, "params": {}, "seed": 0}


def result(number, epoch, score, outcome=None):
    return {
        "event": "result",
        "number": number,
        "epoch": epoch,
        "metrics": {"val_score": score},
        "diverged": None,
        "outcome": outcome,
        "device": "cpu",
    }


def test_best_is_the_best_epoch_of_any_trial_and_of_equals_the_earliest():
    made = state(trial(0), trial(1), result(0, 1, 0.5), result(0, 2, 0.9), result(0, 3, 0.7, "completed"),
                 result(1, 1, 0.9, "completed"))  # fmt: skip
    assert (made.best().number, made.best().best_epoch) == (0, 2)
    assert [t.number for t in made.ranked()] == [0, 1]


def test_diverged_trial_never_wins_and_failed_trial_wins_by_its_results():
    made = state(trial(0), trial(1), trial(2), result(0, 1, 0.9), {**result(0, 2, 0.0, "diverged"), "metrics": {}},
                 result(1, 1, 0.8), {"event": "failed", "number": 1, "traceback": ""},
                 result(2, 1, 0.1, "completed"))  # fmt: skip
    assert [t.number for t in made.ranked()] == [1, 2]
    assert [t.number for t in made.unfinished()] == []


def test_disk_that_is_full_leaves_whole_lines_and_refuses_from_then_on(tmp_path):
    """With a limit on the size of files, which the system reports like a full disk: as an OSError of the write."""
    script = (
        "import resource, sys\n"
        "from search.core.journal import Journal\n"
        "journal = Journal(__import__('pathlib').Path(sys.argv[1]))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    while True:\n"
        "        journal.append({'event': 'session'}, {'event': 'compared'})\n"
        "except OSError:\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\n"
        "try:\n"
        "    journal.append({'event': 'session'})\n"
        "except OSError:\n"
        "    print('refused')\n"
    )
    path = tmp_path / "j.jsonl"
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "refused"
    assert path.read_bytes().endswith(b"\n")
    events = list(read_events(path))
    assert len(events) % 2 == 0 and len(events) > 4, "events that came together are there together"


def test_first_event_has_the_version_of_the_format_and_a_newer_one_is_refused(tmp_path):
    path = tmp_path / "j.jsonl"
    journal = Journal(path)
    journal.append({"event": "session"}, {"event": "session"})
    assert [event.get("version") for event in read_events(path)] == [VERSION, None]
    journal.close()
    path.write_text(f'{{"event": "session", "time": 1, "version": {VERSION + 1}}}\n')
    with pytest.raises(InputError, match=f"written in format {VERSION + 1} by a newer trial-search"):
        list(read_events(path))
    path.write_text('{"event": "session", "time": 1}\n')
    assert len(list(read_events(path))) == 1, "journals from before the version are read"


def written(path, *events):
    with Journal(path) as journal:
        journal.append(*events)
    return path.read_bytes().splitlines(keepends=True)


def old(*events):
    """Lines of format 1, which have no checksums."""
    return [json.dumps({**event, "time": 1}).encode() + b"\n" for event in events]


def test_flipped_digit_is_refused_with_file_and_line(tmp_path):
    path = tmp_path / "j.jsonl"
    lines = written(path, trial(0), result(0, 1, -1.349))
    path.write_bytes(b"".join(lines).replace(b"-1.349", b"-1.348"))
    with pytest.raises(InputError, match=rf"{re.escape(str(path))}: line 2 is damaged .*checksum"):
        list(read_events(path))
    with pytest.raises(InputError, match="line 2 is damaged"):
        Journal(path)


def test_every_flipped_bit_of_a_line_is_refused(tmp_path):
    path = tmp_path / "j.jsonl"
    lines = written(path, {"event": "session"}, trial(0), {"event": "compared"})
    for bit in range(8 * len(lines[1])):
        flipped = bytearray(lines[1])
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(lines[0] + flipped + lines[2])
        with pytest.raises(InputError, match=r"line [23] is damaged"):
            list(read_events(path))


def test_write_that_was_torn_in_the_middle_is_refused(tmp_path):
    path = tmp_path / "j.jsonl"
    first, second, third = written(path, {"event": "session"}, trial(0), {"event": "compared"})
    path.write_bytes(first + second[:20] + third)
    with pytest.raises(InputError, match="line 2 is damaged"):
        list(read_events(path))


def test_old_journal_without_checksums_is_continued_with_checksums(tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_bytes(b"".join(old({"event": "session"}, trial(0))))
    lines = written(path, result(0, 1, 0.5), {"event": "compared"})
    assert [b'"crc"' in line for line in lines] == [False, False, True, True]
    assert [event["event"] for event in read_events(path)] == ["session", "trial", "result", "compared"]
    path.write_bytes(b"".join([*lines[:3], *old({"event": "compared"})]))
    with pytest.raises(InputError, match=r"line 4 is damaged \(its checksum is missing"):
        list(read_events(path))


@pytest.mark.parametrize(
    ("event", "why"),
    [
        ({"evenu": "session"}, "no kind of event is None"),
        ({"event": "sessiom"}, "no kind of event is 'sessiom'"),
        ({"event": "trial", "number": 0, "params": {}}, "seed: Field required"),
        ({"event": "trial", "number": "0", "params": {}, "seed": 0}, "number: Input should be a valid integer"),
        ({**result(0, 1, 0.5), "metrics": {"val_score": "0.5"}}, "metrics.val_score: Input should be a valid number"),
        ({**result(0, 1, 0.5), "outcome": "cmpleted"}, "outcome: Input should be"),
        (trial(2), "it proposes trial 2, where trial 1 comes next"),
        (result(1, 1, 0.5), "its number is 1, and there are 1 trials by then"),
        ([], "it is no event"),
    ],
)
def test_line_of_an_old_journal_that_is_no_event_is_named(tmp_path, event, why):
    path = tmp_path / "j.jsonl"
    lines = old({"event": "session"}, trial(0))
    path.write_bytes(b"".join(lines) + json.dumps(event).encode() + b"\n")
    with pytest.raises(InputError, match=rf"line 3 is damaged \({re.escape(why)}"):
        list(read_events(path))


def test_journal_that_was_closed_without_events_is_gone_with_its_folder(tmp_path):
    Journal(tmp_path / "s" / "j.jsonl").close()
    assert not list(tmp_path.iterdir())
    written(tmp_path / "s" / "j.jsonl", {"event": "session"})
    Journal(tmp_path / "s" / "j.jsonl").close()
    assert (tmp_path / "s" / "j.jsonl").exists()
