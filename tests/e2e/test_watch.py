"""`run --watch` with the real driver: the page of a running search, in a browser and by its server."""

import json
import re
import sys
import time
import urllib.request

import pytest

from tests.browser import browser, sized, until

#: A training of many short epochs.
SCRIPT = """
import json, sys, time
lr = float(sys.argv[1])
for epoch in range(1, 401):
    time.sleep(0.1)
    print("@search", json.dumps({"epoch": epoch, "val_loss": lr + 1 / epoch}), flush=True)
"""
ROWS = "[...document.querySelectorAll('.sortable tbody tr')]"
OUTCOME = f"return {ROWS}.find(r => r.dataset.number == arguments[0])?.cells[1].textContent"


def address_in(process):
    """The address of the page in the output of a command."""
    for line in process.stdout:
        if found := re.search(r"page: (http://127\.0\.0\.1:\d+/#\S+)", line):
            return found[1]
    raise AssertionError("the command printed no address")


def said(page):
    return page.execute_script("return document.getElementById('answer').textContent")


@pytest.mark.slow
def test_page_of_a_real_search_stops_a_trial_and_adds_one_that_trains(command):
    page = browser()
    (command.folder / "train.py").write_text(SCRIPT)
    (command.folder / "space.yaml").write_text("lr: {uniform: [0.1, 1.0]}\n")
    process = command.start(
        "run", "--command", f"{sys.executable} train.py {{lr}}", "--space", "space.yaml", "--objective", "val_loss min",
        "--trials", "2", "--epochs", "400", "--scheduler", "none", "--searcher", "random", "--concurrency", "1",
        "--cpus", "1", "--name", "s", "--no-retrain", "--watch",
    )  # fmt: skip
    try:
        address = address_in(process)
        sized(page, 1200)
        page.get(address)
        until(page, f"{OUTCOME} === 'running'", 0, seconds=200)
        page.execute_script("window.unchanged = true")
        shown = "return document.querySelector('#now strong').textContent"
        first = until(page, shown)
        until(page, f"{shown} !== arguments[0]", first)
        page.execute_script(
            "document.getElementById('add').elements.values.value = 'lr=0.001';"
            "document.getElementById('add').requestSubmit()"
        )
        until(page, "return !['', 'sending…'].includes(document.getElementById('answer').textContent)")
        assert "outside" in said(page) or "0.1" in said(page), "a value outside the space is refused in words"
        page.execute_script(
            "document.getElementById('answer').textContent = '';"
            "document.getElementById('add').elements.values.value = 'lr=0.125';"
            "document.getElementById('add').requestSubmit()"
        )
        until(page, "return !['', 'sending…'].includes(document.getElementById('answer').textContent)")
        page.execute_script(f"{ROWS}.find(r => r.dataset.number == 0).click()")
        until(page, "return document.querySelector('[data-trial=stop]')")
        page.execute_script("document.querySelector('[data-trial=stop]').click()")
        until(page, f"{OUTCOME} === 'stopped early'", 0)
        until(page, f"{OUTCOME} === 'running'", 1, seconds=120)
        added = f"return {ROWS}.find(r => r.textContent.includes('0.125'))"
        until(page, f"{added}?.cells[2].textContent > 1", seconds=120)
        assert page.execute_script("return window.unchanged"), "the page was not loaded again"
        base = address.partition("#")[0]
        request = urllib.request.Request(f"{base}request", b'{"kind": "stop search"}', {"Origin": base.rstrip("/")})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(request)
        page.execute_script(
            "window.confirm = () => true; document.querySelector('[data-request=\"stop search\"]').click()"
        )
        output, _ = process.communicate(timeout=200)
        assert "report: " in output
    finally:
        page.quit()
        process.kill()
    folder = command.folder / "mlruns" / "searches" / "s"
    events = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    kinds = [event["kind"] for event in events if event["event"] == "request"]
    assert kinds == ["add", "stop", "stop search"]
    assert '<script type="application/json" id="data">' in (folder / "report.html").read_text()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(base, timeout=1).close()
            time.sleep(0.2)
        except OSError:
            return
    raise AssertionError("the page's process outlived the search")
