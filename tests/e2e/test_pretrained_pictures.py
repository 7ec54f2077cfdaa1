"""A search of pictures from the packaged backbone: heads on frozen features, then fine-tuning of the best."""

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Command
from tests.outcomes import assert_logged_once, outcome_of, results
from trainables.windows import demo

SEARCH = (
    "run", "windows", "--name", "s", "--trials", "6", "--epochs", "3", "--concurrency", "1", "--seed", "1",
    "--searcher", "ranks", "--set", "search.startup_trials=3", "--set", "data.size=32", "--set", "image_size=32",
    "--set", "resources.dashboard=false",
)  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Drawn windows: 10 pictures of each class."""
    folder = tmp_path_factory.mktemp("pictures")
    labels = np.arange(50) % len(demo.CLASSES)
    for number, image in enumerate(demo.draw_all(labels, 32, 0, lambda *_: None)):
        path = folder / demo.CLASSES[labels[number]] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(path)
    return str(folder)


def fine_tuned(events) -> list[int]:
    return [e["epoch"] for e in results(events) if e["epoch"] > 1]


@pytest.mark.nightly  # test_texts.py kills a search of pretrained models in both phases too
def test_search_killed_in_both_phases_and_resumed(command, tmp_path, pictures):
    whole = Command(tmp_path / "whole", command.env, command.empty_store)
    whole.folder.mkdir()
    output = whole.run(*SEARCH, "--data", pictures)
    assert "frozen_features baseline" in output
    epochs = [e["epoch"] for e in results(whole.events("s"))]
    assert epochs.count(1) == 6 and 0 < len(fine_tuned(whole.events("s"))) < 12, "only the best heads went on"

    command.kill_when("s", lambda events: len(results(events)) >= 2, *SEARCH, "--data", pictures)
    command.kill_when("s", lambda events: len(fine_tuned(events)) >= 2, "resume", "s")
    command.run("resume", "s")
    assert outcome_of(command, "s") == outcome_of(whole, "s")
    assert_logged_once(command, "windows", "s")
    assert "class" in command.call("predict", "windows", pictures, "--format", "json")
