"""Commands show and keep no secret of an address."""

import subprocess
import sys
import traceback

import pytest

from search.core.config import load_config
from search.core.record import SearchRecord
from search.core.store import Store
from search.observer import Observer
from search.preparation import prepare_data_again
from search.runs import RunOptions, run
from tests.search.core.test_redaction import SECRET, secret_in
from trainables import InputError, get_task


def test_resume_asks_for_the_address_whose_secret_is_not_kept(tmp_path):
    store, config = Store(tmp_path), load_config("rnn", profile="data")
    folder = store.search("s")
    folder.write(SearchRecord("rnn", {}, "here", data=f"https://ann:{SECRET}@host/data.csv", fingerprint="f"))
    with pytest.raises(
        InputError, match=r"s: the address https://\*\*\*@host/data\.csv .* lacks the secret, .* --data URI"
    ):
        prepare_data_again(Observer(), store, config, get_task("rnn"), "s", folder.read(store))


def test_storage_with_a_secret_is_refused_before_anything_is_kept(tmp_path):
    config = load_config("rnn", (f"search.storage=ftp://ann:{SECRET}@host/x",))
    with pytest.raises(InputError, match=r"--storage ftp://\*\*\*@host/x: the secret in it would be kept") as refused:
        run(Store(tmp_path), config, RunOptions(name="s"), Observer())
    assert SECRET not in "".join(traceback.format_exception_only(refused.value))
    assert not secret_in(tmp_path, SECRET)


@pytest.mark.parametrize("debug", [(), ("--debug",)])
def test_command_says_no_secret_of_an_address_even_in_a_traceback(debug, tmp_path):
    url = f"postgresql+psycopg2://ann:{SECRET} and more@127.0.0.1:1/x?password=other%20secret"
    arguments = ["import", "optuna", url, "--store", str(tmp_path), *debug]
    ran = subprocess.run([sys.executable, "-m", "search", *arguments], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 2 and "password=***: cannot be opened as a storage of Optuna" in ran.stderr
    assert ("Traceback" in ran.stderr) == bool(debug)
    assert not any(part in ran.stdout + ran.stderr for part in (SECRET, "and more", "other secret", "other%20secret"))
