"""Lines of songs -> who sings them."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from trainables import texts
from trainables.lyrics import demo
from trainables.task import InputError, Objective, Splits
from trainables.text_task import TextTask


class LyricsTask(TextTask):
    name = "lyrics"
    objective = Objective("balanced_accuracy", "max", tuned=("threshold",))
    made = "lines made by code (--data FILE|FOLDER|ZIP: a .txt or folder an artist, or a table)"

    def read(self, data: dict[str, Any], source: Path) -> Splits:
        """Text files, each named by its artist or in a folder named so, a line of a song a line; or tables."""

        def read_file(content: bytes, name: PurePosixPath, place: str) -> pd.DataFrame:
            if name.suffix.lower() != ".txt":
                return texts.read_table(content, name, place, data["text"], data["label"])
            lines = [line.strip() for line in texts.decode(content, place).splitlines()]
            folders = [folder for folder in name.parts[:-1] if folder.lower() not in texts.SPLITS]
            frame = pd.DataFrame({"text": [line for line in lines if line]})
            if frame.empty:
                raise InputError(f"{place}: no line in it")
            return frame.assign(label=folders[-1] if folders else name.stem)

        return texts.prepare(data, source, read_file, {*texts.TABLES, ".txt"})

    def demo(self, data: dict[str, Any]) -> Splits:
        return texts.split_up(demo.make(**data["demo"]), data, "demo", [])


TASK = LyricsTask()
