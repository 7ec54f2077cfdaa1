"""Classifies lines of songs by who sings them."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from trainables import InputError, Objective, Splits
from trainables.base.files import SPLIT_WORDS, Allowance
from trainables.base.tables import TABLES, decode
from trainables.lyrics import demo
from trainables.text import tables, texts
from trainables.text.task import TextTask


class LyricsTask(TextTask):
    name = "lyrics"
    objective = Objective("balanced_accuracy", "max", tuned=("threshold",))
    made = "lines made by code (--data FILE|FOLDER|ZIP: a .txt or folder an artist, or a table)"

    def read(self, data: dict[str, Any], source: Path) -> Splits:
        """Reads tables, or text files of lines of songs, each file or its folder named by the artist."""

        def read_file(content: bytes, name: PurePosixPath, place: str, allowance: Allowance) -> pd.DataFrame:
            if name.suffix.lower() != ".txt":
                unlabelled = data.get("unlabelled")
                return tables.read_table(content, name, place, data["text"], data["label"], unlabelled, allowance)
            lines = [line.strip() for line in decode(content, place).splitlines()]
            folders = [folder for folder in name.parts[:-1] if folder.lower() not in SPLIT_WORDS]
            frame = pd.DataFrame({"text": [line for line in lines if line]})
            if frame.empty:
                raise InputError(f"{place}: no line in it")
            return frame.assign(label=folders[-1] if folders else name.stem)

        return texts.prepare(data, source, read_file, {*TABLES, ".txt"})

    def demo(self, data: dict[str, Any]) -> Splits:
        return texts.split_up(demo.make(**data["demo"]), data, "demo", [])


TASK = LyricsTask()
