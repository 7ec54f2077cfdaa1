import pytest

from search.record.store import Store
from trainables.base.errors import InputError


def test_store_is_made_with_the_folders_above_it(tmp_path):
    Store(tmp_path / "a" / "b").make()
    assert not list((tmp_path / "a" / "b").iterdir())


def test_store_that_cannot_be_made_is_refused_with_the_reason(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/b: results cannot be kept there \(Not a directory\); .*--store DIR"):
        Store(tmp_path / "file" / "b").make()
