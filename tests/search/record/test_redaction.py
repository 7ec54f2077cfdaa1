import pytest

from search.record.redaction import redacted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://ann:hunter2@host:5000/x failed", "http://***@host:5000/x failed"),
        ("postgresql://ann:p%40ss@db/mlflow", "postgresql://***@db/mlflow"),
        ("s3://bucket/a?X-Amz-Signature=abc&size=3", "s3://bucket/a?X-Amz-Signature=***&size=3"),
        ("an e-mail to ann@host about http://host/a", "an e-mail to ann@host about http://host/a"),
    ],
)
def test_credentials_of_uris_are_hidden(text, shown):
    assert redacted(text) == shown


def test_secrets_of_the_environment_are_hidden(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct horse")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/home/ann/token")
    assert redacted("401 for correct horse in /home/ann/token") == "401 for *** in /home/ann/token"
