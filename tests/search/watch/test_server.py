"""What the server of a search's page answers, to whom, and that it leaves the journal to the driver."""

import json
import re
import threading
import time

import pytest
from starlette.testclient import TestClient

from search.core.events import VERSION
from search.core.journal import Tail
from search.core.requests import Mailbox, StopTrials
from search.reports.view import View
from search.watch.process import address_of, listen
from search.watch.server import LivePage, application
from tests.search.reports.test_report import EVIL, text_of
from tests.search.watch.running import Running
from trainables import InputError

TOKEN, HOST = "the-token", "http://127.0.0.1:8123"
SAFE = {"X-Token": TOKEN, "Origin": HOST}


@pytest.fixture
def running(tmp_path):
    search = Running(tmp_path)
    search.propose(0, lr=1e-3, layers=2)
    search.report(0, 1, 0.5)
    yield search
    search.journal.close()


@pytest.fixture
def client(running):
    return TestClient(application(running.store, "s", TOKEN), base_url=HOST)


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_page_shows_what_the_journal_has_now(client, running):
    assert re.search(r"best val_loss 0\.5000 trial 0 at epoch 1", text_of(client.get("/").text))
    running.report(0, 2, 0.25)
    running.propose(1, lr=1e-2, layers=3)
    page = client.get("/").text
    assert re.search(r"best val_loss 0\.2500 trial 0 at epoch 2", text_of(page))
    assert [row["number"] for row in data_of(page)["trials"]["rows"]] == [0, 1]


def test_page_of_a_search_without_a_result_is_served(tmp_path):
    search = Running(tmp_path)
    page = TestClient(application(search.store, "s", TOKEN), base_url=HOST).get("/")
    assert page.status_code == 200 and "no trial has a result yet" in text_of(page.text)
    search.journal.close()


def test_time_of_a_running_search_goes_on_without_results_and_that_of_a_killed_search_ends(tmp_path):
    search = Running(tmp_path)
    search.journal.append({"event": "session", "began": int(time.time() * 1000) - 3_600_000})
    client = TestClient(application(search.store, "s", TOKEN), base_url=HOST)
    assert re.search(r"time 60 min in 2 sessions until now", text_of(client.get("/").text))
    search.propose(0, lr=1e-3, layers=2)
    search.journal.close()
    assert "from beginning to end" in text_of(client.get("/").text)


def test_page_says_that_a_request_paused_the_search_until_another_continues_it(client, running):
    for kind, status in (("pause", "mine, paused; as of"), ("continue", "mine, searching; as of")):
        running.journal.append({"event": "request", "id": kind, "kind": kind, "content": {"trials": []}})
        assert status in text_of(client.get("/").text)


def test_version_grows_with_the_journal_alone(running):
    page = LivePage(View.open(running.store, "s"))
    first = page.version()
    page.html()
    assert page.version() == page.version() == first
    running.report(0, 2, 0.25)
    assert page.version() == first + 1


def test_driver_can_hold_and_write_the_journal_while_the_page_reads(client, running):
    running.journal.close()
    client.get("/")
    again = running.folder.hold(running.store)  # raises if the server holds the file
    assert len(again.append({"event": "session"})) == 1
    again.close()
    assert client.get("/").status_code == 200


def test_trial_has_its_decisions_its_output_and_its_checkpoint(client, running):
    running.journal.append({"event": "checkpoint", "number": 0, "epoch": 1, "name": "trials/0000/1.pt", "bytes": 12})
    log = running.folder.log(0)
    log.parent.mkdir(parents=True)
    log.write_text("loss 0.5\n\x1b[31mred\x1b[0m \u202e\n")
    about = client.get("/trial/0").json()
    assert about["why"][0] == "proposed: by the test" and about["params"] == {"lr": 1e-3, "layers": 2}
    assert about["log"] == ["loss 0.5", "red \\u202e"]
    assert about["checkpoint"] == [f"{running.folder.path}/trials/0000/1.pt (deleted since)", "epoch 1, 12 bytes"]
    answer = client.get("/trial/7")
    assert answer.status_code == 400 and answer.json() == {"error": "s: no trial 7; there are 0 to 0"}


def test_request_with_the_token_reaches_the_driver_and_its_answer_comes_back(client, running):
    mail = Mailbox.of(running.folder)

    def drive():
        while not (waiting := mail.waiting()):
            pass
        assert mail.read(waiting[0]) == StopTrials((0,))
        mail.answer(waiting[0], False, "trial 0 stops")

    driver = threading.Thread(target=drive)
    driver.start()
    answer = client.post("/request", json={"kind": "stop", "trials": [0]}, headers=SAFE)
    driver.join()
    assert answer.json() == {"text": "trial 0 stops"}


@pytest.mark.parametrize("headers", [
    {}, {"Origin": HOST}, {**SAFE, "X-Token": ""}, {**SAFE, "X-Token": "the-tokem"}, {**SAFE, "X-Token": "thé"},
    {"X-Token": TOKEN}, {**SAFE, "Origin": "http://evil.example"}, {**SAFE, "Origin": "null"},
    {**SAFE, "Origin": "http://127.0.0.1:9"},
])  # fmt: skip
def test_nothing_changes_without_the_token_or_from_another_page(client, running, headers):
    headers = {name: value.encode() for name, value in headers.items()}
    answer = client.post("/request", json={"kind": "stop", "trials": [0]}, headers=headers)
    assert answer.status_code == 403 and "error" in answer.json()
    assert Mailbox.of(running.folder).waiting() == []


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8123", "127.0.0.1.evil.example", "", "[::1]:8123"])
def test_name_that_resolves_to_this_machine_reads_and_changes_nothing(client, running, host):
    for method, path in (("GET", "/"), ("GET", "/trial/0"), ("GET", "/events"), ("POST", "/request")):
        answer = client.request(method, path, headers={**SAFE, "Host": host, "Origin": f"http://{host}"})
        assert answer.status_code == 421 and "lr" not in answer.text
    assert Mailbox.of(running.folder).waiting() == []


def test_page_behind_a_tunnel_with_another_port_takes_requests(client, running):
    running.journal.close()  # no driver: the request waits
    headers = {"Host": "localhost:9000", "Origin": "http://localhost:9000", "X-Token": TOKEN}
    answer = client.post("/request", json={"kind": "stop", "trials": [0]}, headers=headers)
    assert "next `resume`" in answer.json()["text"]


@pytest.mark.parametrize(("body", "status", "error"), [
    (b"no json", 400, "no JSON"), (b'{"kind": "explode"}', 400, "unknown"), (b"[" * 70_000, 413, "65536 bytes"),
    (b"[" * 65_000, 400, "no JSON"),
    (b'{"kind": "stop", "trials": ["<b>"]}', 400, "trials"), (b'{"kind": ["stop"]}', 400, "['stop']: unknown"),
    (b'{"kind": "stop", "trials": [true]}', 400, "trials.0: True"),
    (b'{"kind": "add", "configurations": [{"parms": {"lr": 0.01}}]}', 400, "configurations.0.parms"),
])  # fmt: skip
def test_request_that_is_none_is_refused_with_its_reason(client, body, status, error):
    answer = client.post("/request", content=body, headers=SAFE)
    assert answer.status_code == status and error in answer.json()["error"]


def test_policy_lets_no_script_of_the_page_itself_run(client):
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self';" in policy and "default-src 'none'" in policy and "unsafe-eval" not in policy
    assert not re.findall(r"<script(?! type=\"application/json\"| src=)", answer.text)
    assert "Content-Security-Policy" not in answer.text, "the header alone counts"
    assert all(src in ("plotly.js", "report.js") for src in re.findall(r'src="([^"]+)"', answer.text))
    assert client.get("/report.js").headers["content-type"].startswith("text/javascript")


def test_token_is_in_no_answer_and_listens_on_this_machine_alone(client):
    with listen() as listening:
        assert listening.getsockname()[0] == "127.0.0.1"
        assert address_of(listening, "t") == f"http://127.0.0.1:{listening.getsockname()[1]}/#t"
    assert all(TOKEN not in client.get(path).text for path in ("/", "/trial/0", "/report.js"))


def test_names_and_values_are_text_on_the_live_page(tmp_path):
    space = {EVIL: {"uniform": [0, 1]}, "kind": {"choice": [EVIL, "b"]}}
    search = Running(tmp_path, space, objective=f"{EVIL[:-2]} min")
    search.propose(0, **{EVIL: 0.5, "kind": EVIL})
    search.report(0, 1, 1.0)
    client = TestClient(application(search.store, "s", TOKEN), base_url=HOST)
    page = client.get("/").text
    assert "<img" not in page and "pwned=1</script>" not in page and "\x1b" not in page
    rows = data_of(page)["trials"]
    assert any("\\x1b[31m\\u202e" in head for head in rows["heads"]) and "\\x1b[31m" in rows["rows"][0]["cells"][-1]
    about = client.get("/trial/0").json()
    assert "\\x1b[31m" in "".join(about["why"]) and "\x1b" not in "".join(about["why"])
    search.journal.close()


def test_damaged_journal_is_an_error_in_words(client, running):
    with running.folder.journal.open("ab") as file:
        file.write(b"{broken\n")
    answer = client.get("/")
    assert answer.status_code == 500 and "is damaged" in answer.text and "Traceback" not in answer.text


def test_tail_reads_whole_lines_once_and_begins_again_with_a_shorter_file(tmp_path, running):
    tail = Tail(running.folder.journal)
    events, whole = tail.read()
    assert whole and [event["event"] for event in events] == ["session", "trial", "result"]
    assert tail.read() == ([], False)
    size = running.folder.journal.stat().st_size
    with running.folder.journal.open("ab") as file:
        file.write(b'{"event": "sess')
    assert tail.read() == ([], False), "a half-written line waits"
    with running.folder.journal.open("r+b") as file:
        file.truncate(size)
    running.report(0, 2, 0.4)
    assert [event["event"] for event in tail.read()[0]] == ["result"]
    lines = running.folder.journal.read_bytes().splitlines(keepends=True)
    running.folder.journal.write_bytes(b"".join(lines[:2]))
    events, whole = tail.read()
    assert whole and len(events) == 2 and events[0]["version"] == VERSION


def test_tail_of_a_replaced_file_begins_again_and_of_a_damaged_one_raises(running):
    tail = Tail(running.folder.journal)
    tail.read()
    content = running.folder.journal.read_bytes()
    other = running.folder.path / "other"
    other.write_bytes(content * 1 + content.splitlines(keepends=True)[2])
    other.replace(running.folder.journal)
    events, whole = tail.read()
    assert whole and len(events) == 4
    running.folder.journal.write_bytes(b"{broken}\n" * 99)
    with pytest.raises(InputError, match="line 1 is damaged"):
        tail.read()
