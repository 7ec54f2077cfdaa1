"""Classifies tweets: medical or not, or any other labels."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from trainables import Objective, Splits
from trainables.base.files import Allowance
from trainables.text import tables, texts
from trainables.text.task import TextTask
from trainables.tweets import demo


class TweetsTask(TextTask):
    name = "tweets"
    objective = Objective("macro_f1", "max", tuned=("threshold",))
    made = "tweets made by code (--data FILE|FOLDER|ZIP for your tables)"

    def read(self, data: dict[str, Any], source: Path) -> Splits:
        """Reads CSV, TSV, JSON, Parquet or Arrow tables with a text and a label column."""

        def read_file(content: bytes, name: PurePosixPath, place: str, allowance: Allowance) -> pd.DataFrame:
            unlabelled = data.get("unlabelled")
            return tables.read_table(content, name, place, data["text"], data["label"], unlabelled, allowance)

        return texts.prepare(data, source, read_file)

    def demo(self, data: dict[str, Any]) -> Splits:
        return texts.split_up(demo.make(**data["demo"]), data, "demo", [])


TASK = TweetsTask()
