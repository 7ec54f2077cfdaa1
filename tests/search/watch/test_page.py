"""A browser on the page of a running search: news without a reload, and commands."""

import json
import threading
import time
from contextlib import contextmanager

import pytest

from search.core.requests import AddTrials, Mailbox, StopTrials
from search.watch.process import address_of, listen, new_token
from search.watch.server import make_server
from tests.browser import browser, sized, until
from tests.search.reports.made import made
from tests.search.reports.test_figures import SPACE, results
from tests.search.watch.running import Running

#: The outcome of a trial in the table.
ROWS = "[...document.querySelectorAll('.sortable tbody tr')]"
OUTCOME = f"return {ROWS}.find(r => r.dataset.number == arguments[0])?.cells[1].textContent"


@contextmanager
def served(store, name):
    """Serves the page of a search; yields its address."""
    token, listening = new_token(), listen()
    server = make_server(store, name, token)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield address_of(listening, token)
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def chromium():
    page = browser("--disable-webgl", "--disable-3d-apis")
    yield page
    page.quit()


def open_trial(page, number):
    page.execute_script(
        "[...document.querySelectorAll('.sortable tbody tr')].find(r => r.dataset.number == arguments[0]).click()",
        number,
    )


class Driver(threading.Thread):
    """Answers the requests of the page as the driver of a search would: it writes events."""

    def __init__(self, running):
        super().__init__(daemon=True)
        self.running, self.over = running, threading.Event()

    def run(self):
        mail = Mailbox.of(self.running.folder)
        while not self.over.wait(0.05):
            for name in mail.waiting():
                request = mail.read(name)
                if isinstance(request, StopTrials):
                    for number in request.trials:
                        self.running.journal.append({"event": "stopped_early", "number": number, "reason": "asked"})
                elif isinstance(request, AddTrials):
                    number = len(self.running.trials())
                    self.running.propose(number, **request.configurations[0].params)
                    self.running.report(number, 1, 0.125, "completed")
                mail.answer(name, False, f"taken up: {type(request).__name__}")


@pytest.mark.slow
def test_page_of_a_running_search_has_news_without_a_reload_and_takes_commands(tmp_path, chromium):
    running = Running(tmp_path)
    for number in (0, 1):
        running.propose(number, lr=10.0 ** (-3 - number), layers=2)
        running.report(number, 1, 0.5 + number)
    driver = Driver(running)
    driver.start()
    best = "return document.querySelector('#now strong').textContent"
    with served(running.store, "s") as address:
        sized(chromium, 1200)
        chromium.get(address)
        until(chromium, "return document.querySelectorAll('.main-svg').length > 4")
        chromium.execute_script("window.unchanged = true; document.getElementById('filter').value = 'running'")
        waited = []
        for value in (0.45, 0.4, 0.35, 0.3):
            began = time.monotonic()
            running.report(0, round((0.5 - value) * 20) + 1, value)
            until(chromium, f"{best} === arguments[0]", f"{value:.4f}")
            waited.append(time.monotonic() - began)
        assert min(waited) < 3, "a new best is there within three seconds"
        open_trial(chromium, 1)
        until(chromium, "return document.querySelector('[data-trial=stop]')")
        why = until(chromium, "return [...document.querySelectorAll('dialog pre')].map(p => p.textContent)")
        assert "proposed: by the test" in why[0]
        chromium.execute_script("document.querySelector('[data-trial=stop]').click()")
        until(chromium, "return document.getElementById('answer').textContent.includes('StopTrials')")
        chromium.execute_script(
            "const f = document.getElementById('filter'); f.value = ''; f.dispatchEvent(new Event('input'))"
        )
        until(chromium, f"{OUTCOME} === 'stopped early'", 1)
        chromium.execute_script(
            "const form = document.getElementById('add'); form.elements.values.value = 'lr=0.01 layers=3';"
            "form.requestSubmit()"
        )
        until(chromium, f"{OUTCOME} === 'completed'", 2)
        assert running.folder.journal.read_text().count('"lr": 0.01, "layers": 3') == 1
        assert chromium.execute_script("return window.unchanged"), "the page was not loaded again"
        chromium.execute_script("location.hash = ''; location.reload()")
        until(chromium, "return document.getElementById('connection').textContent.includes('Read only')")
        assert chromium.execute_script("return document.getElementById('commands').hidden")
        sources = chromium.execute_script("return performance.getEntriesByType('resource').map(r => r.name)")
        assert all(source.startswith(address.partition("#")[0]) for source in sources), "nothing from elsewhere"
        assert chromium.get_log("browser") == []
    driver.over.set()
    driver.join()
    running.end()


SPACED = {
    "c": {"choice": ["a b", "c"]},
    "x y": {"uniform": [0, 1]},
    "n": {"choice": ["1", "2"]},
    "a=b": {"int": [1, 9]},
}
FIELD = "document.getElementById('add').elements.values"
SAID = "document.getElementById('answer').textContent"


@pytest.fixture
def opened(tmp_path, chromium, request):
    """A served search whose trial 0 has a checkpoint and is open on the page."""
    space, params = getattr(request, "param", (None, {"lr": 1e-3, "layers": 2}))
    running = Running(tmp_path, space)
    running.propose(0, **params)
    running.report(0, 1, 0.5)
    running.journal.append({"event": "checkpoint", "number": 0, "epoch": 1, "name": "trials/0000/1.pt", "bytes": 12})
    driver = Driver(running)
    driver.start()
    with served(running.store, "s") as address:
        sized(chromium, 1200)
        chromium.get(address)
        until(chromium, "return document.querySelector('.sortable tbody tr')")
        open_trial(chromium, 0)
        until(chromium, "return document.querySelector('[data-trial=stop]')")
        yield running
    driver.over.set()
    driver.join()
    running.end()


def press(page, name):
    """Clicks as a person does: what covers a button gets the click."""
    page.find_element("xpath", f"//button[text()='{name}']").click()


@pytest.mark.slow
@pytest.mark.parametrize(("text", "why"), [
    ("lr=0.002 hidden", "hidden: expected NAME=VALUE"), ('{"lr": }', "is no JSON"), ("=2", "=2: expected NAME=VALUE"),
])  # fmt: skip
def test_field_that_holds_no_configuration_is_the_answer_of_both_buttons(opened, chromium, text, why):
    for name in ("add from its checkpoint", "Add a configuration"):
        chromium.execute_script(
            f"{FIELD}.value = arguments[0]; document.getElementById('answer').textContent = 'old'", text
        )
        chromium.execute_script(
            "[...document.querySelectorAll('button')].find(b => b.textContent === arguments[0]).click()", name
        )
        assert why in chromium.execute_script(f"return {SAID}")
    assert Mailbox.of(opened.folder).waiting() == [] and len(opened.trials()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("opened", [
    (SPACED, {"c": "a b", "x y": 0.63, "n": "1", "a=b": 3}), (SPACED, {"c": "c", "x y": 0.5, "n": "2", "a=b": 1}),
    (None, {"lr": 1e-3, "layers": 2}),
], indirect=True)  # fmt: skip
def test_configuration_of_a_trial_is_added_with_the_same_names_and_values(opened, chromium):
    press(chromium, "add one like it")
    assert not chromium.execute_script("return document.querySelector('dialog').open")
    assert chromium.execute_script(f"return document.activeElement === {FIELD}")
    press(chromium, "Add a configuration")
    until(chromium, f"return {SAID}.includes('AddTrials')", seconds=20)
    first, again = (trial["params"] for trial in opened.trials())
    assert again == first and list(map(type, again.values())) == list(map(type, first.values()))


@pytest.mark.slow
def test_usual_configuration_of_a_trial_is_written_in_words(opened, chromium):
    press(chromium, "add one like it")
    assert chromium.execute_script(f"return {FIELD}.value") == "lr=0.001 layers=2"


@pytest.mark.slow
def test_open_trial_follows_the_news(opened, chromium):
    facts = "return document.querySelector('dialog dl').textContent"
    assert "epochs1" in chromium.execute_script(facts)
    chromium.execute_script("window.button = document.querySelector('[data-trial=stop]')")
    opened.report(0, 2, 0.25)
    until(chromium, f"{facts}.includes('epochs2')")
    until(chromium, "return document.querySelector('dialog pre').textContent.includes('epoch 2')")
    assert chromium.execute_script("return window.button.isConnected"), "a button under the pointer stays"


@pytest.mark.slow
def test_table_sorts_filters_and_keeps_what_a_person_chose(tmp_path, chromium):
    store, *_ = made(tmp_path, SPACE, results(250))
    rows = "return [...document.querySelectorAll('.sortable tbody tr')].map(r => r.cells[{}].textContent)"
    filtered = (
        "const f = document.getElementById('filter'); f.value = arguments[0]; f.dispatchEvent(new Event('input'))"
    )
    with served(store, "s") as address:
        chromium.get(address)
        until(chromium, "return document.querySelector('.sortable tbody tr')")
        assert len(chromium.execute_script(rows.format(0))) == 200
        assert chromium.execute_script("return document.getElementById('count').textContent") == "200 of 250 trials"
        chromium.execute_script("document.getElementById('every').click()")
        assert len(chromium.execute_script(rows.format(0))) == 250
        chromium.execute_script(filtered, "completed lr<0.01 layers>=3")
        found = [chromium.execute_script(rows.format(i)) for i in (1, 5, 6)]
        assert set(found[0]) == {"completed"} and all(float(lr) < 0.01 for lr in found[1])
        assert found[2] and all(int(layers) >= 3 for layers in found[2])
        chromium.execute_script("document.querySelectorAll('.sortable th button')[5].click()")
        assert [float(lr) for lr in chromium.execute_script(rows.format(5))] == sorted(map(float, found[1]))
        chromium.execute_script(filtered, "optimizer=sgd")
        assert set(chromium.execute_script(rows.format(7))) == {"sgd"}


@pytest.mark.slow
def test_page_of_2000_trials_has_few_traces_and_says_what_it_leaves_out(tmp_path, chromium):
    store, *_ = made(tmp_path, SPACE, results(2000))
    with served(store, "s") as address:
        sized(chromium, 1200)
        chromium.get(address)
        until(chromium, "return document.querySelectorAll('.main-svg').length > 4")
        data = json.loads(chromium.execute_script("return document.getElementById('data').textContent"))
        traces = {name: len(plot["data"]) for name, one in data["figures"].items() for plot in one["plots"]}
        assert max(traces.values()) <= 9
        words = chromium.execute_script("return document.getElementById('learning-curves').textContent")
        assert "Drawn are" in words and "trials: the" in words
        assert len(data["trials"]["rows"]) == 2000
        assert chromium.get_log("browser") == []
