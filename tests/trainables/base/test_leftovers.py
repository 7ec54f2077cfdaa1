import threading

import torch

from trainables.base.leftovers import Footprint


def test_clean_trial_leaves_nothing():
    base = Footprint.now()
    model = torch.nn.Linear(100, 100)
    model(torch.zeros(1, 100)).sum().backward()
    del model
    assert Footprint.now().beyond(base) == []


def test_leftovers_are_named(tmp_path, monkeypatch):
    base = Footprint.now()
    measured = threading.Event()
    threads = [threading.Thread(target=measured.wait) for _ in range(9)]
    for thread in threads:
        thread.start()
    files = [(tmp_path / str(i)).open("w") for i in range(20)]
    monkeypatch.setenv("LEFT_BY_A_TRIAL", "1")
    torch.set_default_dtype(torch.float64)
    try:
        left = Footprint.now().beyond(base)
    finally:
        torch.set_default_dtype(torch.float32)
        for file in files:
            file.close()
        measured.set()
        for thread in threads:
            thread.join()
    assert left[0].endswith(" threads")  # those that other tests left may end meanwhile
    assert left[1:] == ["20 open files", "environment changed", "torch's default dtype changed"]
