"""What a person sees in a report, and what a report does with names and values that are markup."""

import html
import json
import re
import time

import pytest

from search.core.journal import Journal
from search.core.readable import duration, visible
from search.core.state import final_name
from search.core.time_plan import TimePlan, TrialsSoFar
from search.reports import report
from search.reports.pages import render
from search.reports.view import View
from tests.browser import browser, sized, until
from tests.search.reports.made import made, made_of_task
from tests.search.reports.test_figures import SPACE, results

#: A text that runs a script if a page takes it for HTML, ends a script, holds an escape and a mark of direction, and
#: cannot be encoded.
EVIL = "</script><script>pwned=1</script><img src=x onerror=pwned=1>\x1b[31m\u202e\ud800\x00"


def page_of(tmp_path, trials, space=SPACE, **more):
    _, folder, record, config = made(tmp_path, space, trials, **more)
    return report.write_report(folder, record, config).read_text(), folder


def text_of(page):
    """The words of a page, without scripts and tags."""
    page = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)))


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    return page_of(tmp_path_factory.mktemp("report"), [*results(110), ({}, [], "failed")])


def test_head_of_the_report_has_the_figures_that_matter(usual):
    page, _ = usual
    text = text_of(page).split("Best so far")[0]
    assert re.search(r"best val_loss 0\.01\d* trial \d+ at epoch \d of 10", text)
    assert re.search(r"trials 111 \d+ completed, \d+ stopped early, \d+ diverged, \d+ failed", text)
    assert "from beginning to end; 11 min of training in all trials" in text, "330 epochs of two seconds"
    assert "|" not in text, "no Markdown"


def test_head_of_the_report_names_the_limit_and_what_one_more_hour_brings(tmp_path):
    flags = {"search.target": 0.01, "search.cost_budget": 50.0, "resources.price_cpu_hour": 1.0, "search.trials": 120}
    _, folder, record, config = made(tmp_path, SPACE, results(40), flags=flags)
    settings = {"target": 0.01, "trials": 120, "epochs": config.search.epochs, "added": 0}
    with Journal(folder.journal) as journal:
        journal.append({"event": "limit", "why": "target", "reason": "trial 3 is there", "settings": settings})
    view = View(folder, record, config)
    view.read()
    view.state.seconds = 240.0  # a journal that is written at once has no times
    rows = {row["name"]: (row["figure"] + " " + row["words"]).strip() for row in report.page_data(view)["head"]}
    assert rows["ended by"] == "target trial 3 is there"
    assert re.fullmatch(r"[\d.]+ used of 50.00, about [\d.e-]+ kept for the final training", rows["cost budget"])
    assert re.fullmatch(r"-[\d.e-]+, 95 %: -[\d.e-]+ to -?[\d.e-]+", rows["one more hour"])


def data_of(page):
    """The figures, hover labels and rows for the page's script."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_trials_table_has_every_hyperparameter_marks_the_best_and_counts_what_it_leaves_out(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "ROWS", 100)
    page, folder = page_of(tmp_path, [*results(110), ({}, [], "failed")])
    heads, rows = data_of(page)["trials"].values()
    assert heads == ["trial", "outcome", "epochs", "time", "val_loss", *SPACE]
    assert len(rows) == 100
    assert [row["cells"][0].endswith(" best") for row in rows] == [True] + [False] * 99 == [row["best"] for row in rows]
    assert "The best 100 are shown and 11 left out" in text_of(page)
    assert f"compare mine --search {folder.name} --top 0" in text_of(page)
    keys = [row["keys"][4] for row in rows[:20]]
    assert keys == sorted(keys)


def test_budget_shows_what_is_used_and_what_is_reserved(tmp_path):
    plan = TimePlan(budget_seconds=1200, full_trial_epochs=3, most_final_epochs=3, train_samples=100, workers=2)
    flags = {"search.trials": 40, "search.epochs": 3, "search.time_budget": "20m"}
    _, folder, record, config = made(tmp_path, SPACE, results(20), flags=flags)
    folder.journal.unlink()
    now = int(time.time() * 1000)
    with Journal(folder.journal) as journal:
        journal.append({"event": "session", "plan": plan.fields(), "began": now - 300_000})
        for number, (params, values, _) in enumerate(results(2)):
            journal.append({"event": "trial", "number": number, "params": params, "seed": 0})
            for epoch, value in enumerate(values, 1):
                journal.append({
                    "event": "result", "number": number, "epoch": epoch, "outcome": None, "diverged": None,
                    "metrics": {"val_loss": value, "epoch_seconds": 10.0}, "device": "cpu",
                })  # fmt: skip
    view = View(folder, record, config)
    view.read()
    clock = view.time_budget()
    trials = TrialsSoFar.from_state(config, view.state)
    assert clock["of"] == 1200 and 300 <= clock["used"] < 400
    assert clock["reserved"] == pytest.approx(plan.after_trials(trials, 1200 - clock["used"]).seconds, rel=0.01)
    text = text_of(report.write_report(folder, record, config).read_text())
    assert re.search(r"time budget 5 min used of 20 min, \S+ \S+ reserved for the trainings after the trials", text)
    assert "trials to run 0 of 40 trials ended, 2 proposed" in text


@pytest.mark.parametrize(("about", "source"), [
    ({}, "whatever the function or the command reads"), ({"imported": "study.db"}, "imported from study.db"),
])  # fmt: skip
def test_data_of_a_training_of_ones_own_is_no_demo(tmp_path, about, source):
    _, folder, record, config = made(tmp_path, {"x": {"uniform": [0, 1]}}, [({"x": 0.1}, [1], "completed")], **about)
    text = text_of(report.write_report(folder, record, config).read_text())
    assert f"source {source} fingerprint" in text and "demo" not in text.split("fingerprint")[0]


def test_again_has_a_command_and_no_dictionaries(usual):
    text = text_of(usual[0]).split("Again")[1]
    assert "search.run( mine," in text
    assert "trials=111" in text
    assert "search: searcher: " in text, "all settings are YAML"


def test_final_model_shows_its_own_pictures_and_the_comparison_shows_its_own(tmp_path):
    picture = bytes.fromhex("89504e470d0a1a0a")
    begin = (
        {"event": "trial", "number": 0, "params": {"x": 0.1, "kind": "a"}, "seed": 0, "time": 0},
        {"event": "result", "number": 0, "epoch": 1, "outcome": "completed", "diverged": None, "device": "cpu",
         "metrics": {"val_loss": 0.3, "epoch_seconds": 1.0}, "time": 5},
        {"event": "final_started", "trial": 0, "seed": 0, "params": {"x": 0.1}, "epochs": 2, "merged": True,
         "time": 6},
        {"event": "final_finished", "trial": 0, "seed": 0, "epochs": 2, "test": {"loss": 0.5, "mae": 0.25},
         "baselines": {"ridge": 0.4}, "chosen": True, "device": "cpu", "spent": 1, "time": 7},
        {"event": "repeat_started", "value": "a", "seed": 0, "trial": 0, "params": {"x": 0.1}, "time": 8},
        {"event": "repeat_result", "value": "a", "seed": 0, "trial": 0, "epoch": 1, "time": 8,
         "metrics": {"val_loss": 0.3, "train_loss": 0.2, "epoch_seconds": 1.0}},
        {"event": "repeat_finished", "value": "a", "seed": 0, "trial": 0, "best_epoch": 1, "parameters": 3,
         "test": {"loss": 0.6}, "time": 9},
        {"event": "compared", "time": 9},
    )  # fmt: skip
    space = {"x": {"uniform": [0, 1]}, "kind": {"choice": ["a", "b"]}}
    _, folder, record, config = made(tmp_path, space, [], sets=("search.balance=kind",), begin=begin)
    for path in (
        folder.comparison / "curves_of_seeds.png",
        folder.path / final_name(0, 0) / "artifacts" / "predictions.png",
    ):
        path.parent.mkdir(parents=True)
        path.write_bytes(picture)
    page = report.write_report(folder, record, config).read_text()
    final = page.split("<h2>The final model</h2>")[1].split("<h2>")[0]
    compared = page.split("<h2>The values of kind compared</h2>")[1].split("<h2>")[0]
    assert re.findall(r'alt="([^"]+)"', final) == ["predictions"]
    assert re.findall(r'alt="([^"]+)"', compared) == ["curves of seeds"]
    head = text_of(page).split("Best so far")[0]
    assert "test_loss 0.5000 trial 0 trained again, 2 epochs, seed 0" in head
    assert "baseline ridge 0.4000 on test NOT beaten" in head
    assert "after training on both: 0.2 worse." in head
    assert "loss mae seed 0 0.5000 0.2500 baseline ridge 0.4000" in text_of(final)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (0.0123, "0.012 s"), (33.2, "33 s"), (720, "12 min"),
                                               (5040, "84 min"), (5400, "1.5 h")])  # fmt: skip
def test_durations_are_read_at_a_glance(seconds, text):
    assert duration(seconds) == text


def test_time_of_a_search_is_that_of_its_sessions():
    events = [{"event": "session", "time": 1000}, {"event": "ended", "time": 4000},
              {"event": "session", "time": 900_000}, {"event": "ended", "time": 905_000}]  # fmt: skip
    assert report.elapsed(events) == 8
    assert report.elapsed(events, until=965_000) == 68
    events[2]["began"] = 890_000
    assert report.elapsed(events, until=965_000) == 78


def evil(tmp_path):
    """A report in which every name and value from outside is `EVIL`."""
    space = {EVIL: {"uniform": [0, 1]}, "kind": {"choice": [EVIL, "<b>b</b>"]}}
    trials = [({EVIL: i / 9, "kind": (EVIL, "<b>b</b>")[i % 2]}, [1.0 + i], "completed") for i in range(9)]
    _, folder, record, config = made(tmp_path, space, trials, objective=f"{EVIL[:-2]} min", fingerprint=EVIL)
    return report.write_report(folder, record, config)


def test_names_and_values_cannot_become_markup(tmp_path):
    page = evil(tmp_path).read_text()
    # The scripts of a page are plotly's, those of the figures and that of the template; no other begins.
    assert "pwned=1</script>" not in page
    assert "<img src=x" not in page
    assert "\x1b" not in page.replace("\\u001b", "")
    assert "\u202e" not in text_of(page)
    assert "\\x1b[31m\\u202e\\ud800\\x00" in text_of(page)


def test_control_characters_are_visible_and_new_lines_stay():
    assert visible("a\x1b[31m\u2066b\n\tc é \U0001f600") == "a\\x1b[31m\\u2066b\n\tc é \U0001f600"
    data = dict.fromkeys(("task", "source", "sizes", "fingerprint", "made", "title"), EVIL)
    finding = {"title": EVIL, "words": EVIL, "picture": "", "heads": [EVIL], "rows": [[EVIL]]}
    page = render("data.html", **data, warnings=[EVIL], copies=EVIL, notes=[EVIL], findings=[finding], surveyed=True)
    page.encode()
    assert "<script>" not in page and "<img" not in page and "\x1b" not in page
    assert page.count("&lt;/script&gt;") >= 10


def opened(page, path, width, scheme):
    """Opens a report at a width, and waits until all its figures are drawn; returns their number."""
    sized(page, width, scheme, height=9000)
    page.get(path.as_uri())
    drawn = "return [...document.querySelectorAll('.plots > div')].map(f => f.querySelectorAll('.main-svg').length)"
    until(page, f"{drawn.replace('return ', 'const counts = ')}; return counts.length && counts.every(n => n)")
    return len(page.execute_script(drawn))


@pytest.mark.slow
def test_report_in_a_browser_is_whole_without_webgl_at_any_width_and_in_print(usual, tmp_path):
    _, folder = usual
    page = browser("--disable-webgl", "--disable-3d-apis")
    try:
        for width, scheme, ground in ((390, "dark", "rgb(18, 18, 18)"), (1200, "light", "rgb(255, 255, 255)")):
            assert opened(page, folder.path / "report.html", width, scheme) == 8 + len(SPACE)
            assert page.execute_script("return getComputedStyle(document.body).backgroundColor") == ground
            text = page.execute_script("return getComputedStyle(document.querySelector('.xtick text')).fill")
            assert (sum(map(int, re.findall(r"\d+", text))) > 600) == (scheme == "dark"), "text stands out"
            wide, inner = page.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
            assert wide <= inner, "what is too wide scrolls by itself, not the page"
        for head, at in (("lr", 5), ("trial", 0)):
            page.execute_script(f"document.querySelectorAll('.sortable th button')[{at}].click()")
            column = page.execute_script(
                f"return [...document.querySelectorAll('.sortable tbody tr')].map(r => r.cells[{at}].textContent)"
            )
            known = [float(one.split()[0]) for one in column if one]
            assert known == sorted(known) and len(known) > 90, head
        for event in ("beforeprint", "afterprint", "beforeprint"):
            page.execute_script(f"dispatchEvent(new Event('{event}'))")
            time.sleep(1)
        sizes = page.execute_script("return [...document.querySelectorAll('.main-svg')].map(s => s.clientWidth)")
        assert max(sizes) <= 680, "a figure fits the width of a page of paper"
        heights = page.execute_script("return [...document.querySelectorAll('.plots > div')].map(d => d.clientHeight)")
        assert max(heights) <= 860 and heights.count(230) == len(SPACE), "and its height; four rows of small figures"
        page.execute_script("dispatchEvent(new Event('afterprint'))")
        assert 270 in page.execute_script(
            "return [...document.querySelectorAll('.plots > div')].map(d => d.clientHeight)"
        )
        assert page.execute_script("return performance.getEntriesByType('resource').map(r => r.name)") == []
        assert page.get_log("browser") == []
        page.execute_script("document.querySelector('.sortable tbody tr').click()")
        assert f"search why {folder.name}" in page.execute_script("return document.querySelector('dialog').textContent")
        path = evil(tmp_path)
        opened(page, path, 1200, "light")
        assert page.execute_script("return typeof pwned") == "undefined"
        labels = page.execute_script("return [...document.querySelectorAll('svg text')].map(t => t.textContent)")
        assert any("<b>b</b>" in one for one in labels), "a label shows its text"
        assert page.get_log("browser") == []
    finally:
        page.quit()


def test_printed_tables_have_every_column_and_fit_a_page(tmp_path):
    names = [f"a_hyperparameter_{i}" for i in range(20)]
    space = {name: {"uniform": [0, 1]} for name in names} | {"flag": {"choice": [True, False]}}
    trials = [({**dict.fromkeys(names, 0.12345), "flag": i == 0}, [376.0 + i], "completed") for i in range(3)]
    page, _ = page_of(tmp_path, trials, space)
    tables = [part.split("</table>")[0] for part in page.split('<table class="print">')[1:]]
    heads = [re.findall("<th>(.*?)</th>", table) for table in tables]
    assert len(heads) > 2 and all(head[0] == "trial" for head in heads)
    assert [name for head in heads for name in head if name in space] == list(space)
    rows = [re.findall("<td>(.*?)</td>", row) for table in tables for row in table.split("<tr")[2:]]
    assert all(sum(len(cell) + 2 for cell in row) <= report.PRINTED for row in [*heads, *rows])
    assert "376.0" in rows[0] and "true" in rows[-3] and "false" in rows[-1], "values read as elsewhere"


def test_again_keeps_the_lines_of_a_call_and_the_dashes_of_an_option(usual, tmp_path):
    (call,) = re.findall(r'<pre id="again">(.*?)</pre>', usual[0], re.DOTALL)
    assert call.startswith("search.run(\n") and "<span>" not in call
    page = render_again("python -m search run rnn --trials 9")
    assert '<pre id="again">python -m search run rnn <span>--trials</span> 9</pre>' in page


def render_again(command):
    texts = ("title", "name", "task", "made", "said", "status", "plotly", "script", "settings")
    lists = ("head", "bars", "remarks", "drawings")
    table = {"heads": (), "rows": (), "printed": (), "printed_rows": (), "unprinted": 0, "words": ""}
    stopping = {"stopped": 0, "rule": "", "rungs": table, "audit": ""}
    return render("report.html", **dict.fromkeys(texts, ""), **dict.fromkeys(lists, ()), stopping=stopping, spent=table,
                  comparison=None, final=None, trials=table, facts={}, drawn={}, live=False,
                  again={"command": command, "words": "", "space": ""})  # fmt: skip


def test_settings_of_the_demo_are_no_facts_of_other_data(tmp_path):
    for data in (None, "photos/"):
        *_, record, config = made_of_task(tmp_path / str(data), "windows", data=data)
        facts = report._facts(record, config)["Data"]
        assert any(key.startswith("data.demo.") for key in facts) == (data is None)
