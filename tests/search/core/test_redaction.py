import json
import string
from dataclasses import replace
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.core import redaction
from search.core.record import SearchRecord
from search.core.redaction import redacted, remember, without_secrets
from search.core.store import Store


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://ann:hunter2@host:5000/x failed", "http://***@host:5000/x failed"),
        ("postgresql://ann:p%40ss@db/mlflow", "postgresql://***@db/mlflow"),
        ("postgresql+psycopg2://ann:p/s@s?#@db/mlflow", "postgresql+psycopg2://***@db/mlflow"),
        ("https://ghp_token@github.com/x", "https://***@github.com/x"),
        ("s3://bucket/a?X-Amz-Signature=abc&size=3", "s3://bucket/a?X-Amz-Signature=***&size=3"),
        (
            "mysql://db/x?password=abc&passwd=d&pwd=e&timeout=3",
            "mysql://db/x?password=***&passwd=***&pwd=***&timeout=3",
        ),
        ("https://h/x?sv=2&sig=abc%3D&se=3", "https://h/x?sv=2&sig=***&se=3"),
        ("AccountName=me;AccountKey=abc==;End=x", "AccountName=me;AccountKey=***;End=x"),
        ("host=db password=abc user=ann", "host=db password=*** user=ann"),
        ("host=db password = 'a b' user=ann", "host=db password = *** user=ann"),
        ("mssql+pyodbc:///?odbc_connect=UID%3Da%3BPWD%3Dhunter2", "mssql+pyodbc:///?odbc_connect=***"),
        ("DRIVER%3D%7BX%7D%3BPWD%3Dhunter2%3BUID%3Da", "DRIVER%3D%7BX%7D%3BPWD%3D***%3BUID%3Da"),
        ("https://h/x#access_token=abc&a=1", "https://h/x#access_token=***&a=1"),
        ("postgresql://ann.lee:12345/abc@db/x", "postgresql://***@db/x"),
        ("http://h/#/runs?a=b&viewStateShareKey=12a19f&c=d", "http://h/#/runs?a=b&viewStateShareKey=12a19f&c=d"),
        ("an e-mail to ann@host about http://host/a", "an e-mail to ann@host about http://host/a"),
        ("http://data.example:8000/set@v2.csv", "http://data.example:8000/set@v2.csv"),
        ("http://host:5000/a and sqlite:////tmp/a@b.db", "http://host:5000/a and sqlite:////tmp/a@b.db"),
        ("http://h/#/runs?a=b&viewStateShareKey=7ad1&c=d", "http://h/#/runs?a=b&viewStateShareKey=7ad1&c=d"),
        ("loss 0.5 at epoch 3 ?", "loss 0.5 at epoch 3 ?"),
    ],
)
def test_credentials_of_uris_are_hidden(text, shown):
    assert redacted(text) == shown


def test_secrets_of_the_environment_are_hidden(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct horse")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/home/ann/token")
    assert redacted("401 for correct horse in /home/ann/token") == "401 for *** in /home/ann/token"


def test_secret_of_an_address_in_the_environment_is_hidden_where_it_stands_alone(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://ann:correct horse@db/mlflow")
    assert redacted("no host 'correct horse@db'") == "no host '***@db'"


PASSWORDS = st.text(string.printable, min_size=8, max_size=24).filter(lambda text: text.strip() == text)


@given(
    PASSWORDS, st.sampled_from(["postgresql://ann:{raw}@db/x", "https://{token}@host/x", "ftp://h/x?password={safe}"])
)
def test_password_of_any_characters_is_hidden_in_each_form(password, form):
    if "{token}" in form:  # a name alone, which has no signs of an address in it
        password = "".join(sign for sign in password if sign.isalnum()) + "-token-0"
    address = form.format(raw=password, token=password, safe=quote(password))
    redaction._given.clear()
    try:
        remember(address)
        for text in (
            address, f"--data {address}: cannot be read", repr(address), json.dumps({"data": address}),
            f"authentication failed for {password!r}", json.dumps([password]), f"tried {password}, then nothing",
        ):  # fmt: skip
            shown = redacted(text)
            assert password not in shown and json.dumps(password)[1:-1] not in shown
        assert password not in without_secrets(address)
    finally:
        redaction._given.clear()


def secret_in(root, secret: str) -> list[str]:
    return [str(p) for p in root.rglob("*") if p.is_file() and secret.encode() in p.read_bytes()]


SECRET = "cor/rect@horse"
#: A record with its required fields alone.
NEEDED = SearchRecord("rnn", {}, "here")


def test_record_of_a_search_keeps_no_secret_and_is_its_owners_alone(tmp_path):
    folder = Store(tmp_path).search("s")
    folder.write(replace(
        NEEDED, data=f"https://ann:{SECRET}@host/data.csv?sig=abcdefgh", address=f"http://ann:{SECRET}@h",
        imported=f"mssql+pyodbc:///?odbc_connect=PWD%3D{quote(SECRET, safe='')}",
    ))  # fmt: skip
    assert not secret_in(tmp_path, SECRET) and not secret_in(tmp_path, quote(SECRET, safe=""))
    assert (folder.path / "search.json").stat().st_mode & 0o777 == 0o600
    assert folder.read(Store(tmp_path)) == replace(
        NEEDED, data="https://***@host/data.csv?sig=***", address="http://***@h",
        imported="mssql+pyodbc:///?odbc_connect=***",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"x --token {SECRET} --lr 1", "x --token *** --lr 1"),
        (f"Command(text='x --hf-token={SECRET}')", "Command(text='x --hf-token=***')"),
        (f"x -api_key '{SECRET} b' c", "x -api_key *** c"),
        (f"env WANDB_API_KEY={SECRET} x", "env WANDB_API_KEY=*** x"),
        ("x --token {token} --password {a.password}", "x --token {token} --password {a.password}"),
        ("x --max-tokens 100000000 --tokenizer bert-large --pad-token '<pad>'", None),
        ("model(token=token_embedding, secrets=12345678)", None),
    ],
)
def test_secrets_of_commands_are_hidden(text, shown):
    assert redacted(text) == (shown or text)
