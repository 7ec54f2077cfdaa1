import pytest

from search.core.store import Store
from trainables.base.errors import InputError


def test_store_that_can_be_made_is_not_made_yet(tmp_path):
    Store(tmp_path / "a" / "b").check()
    assert not (tmp_path / "a").exists()


def test_store_that_cannot_be_made_is_refused_with_the_reason(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/b: results cannot be kept there \(.*file is no folder\); .*--store"):
        Store(tmp_path / "file" / "b").check()
