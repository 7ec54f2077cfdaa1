"""Claim: a grid on cached features takes a twentieth of the time of `transformers.Trainer` with the same frozen base.

12 grid points (learning rate, class weighting, dropout) of 5 epochs on 5,000 of the tweets task's demo tweets. Ours is
the real command, encoding, Ray's start and MLflow included. The Trainer is run for two of the points, each with the
encoder frozen in evaluation mode, the same head, learning rate, batch size and schedule; its time is the mean of the
two, times 12. Exits with 1 where the macro-F1 on validation of those two points differs by more than 0.01, or the
ratio is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import f1_score
from torch import nn
from transformers import DataCollatorWithPadding, DistilBertForSequenceClassification, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from benchmarks import run_search
from search.core.config import load_config
from trainables import get_task
from trainables.text.batches import EncodedSplit
from trainables.text.scores import best_threshold

CLAIM, TOLERANCE = 20.0, 0.01
EPOCHS, SIZE = 5, 8334  # tweets, of which 5,000 train
SETS = (
    "lr={choice: [3.0e-4, 1.0e-3, 3.0e-3]}", "weighting={choice: [none, balanced]}", "dropout={choice: [0.1, 0.4]}",
    "model.tfidf=false", "model.pooling=cls", "weight_decay=0.01", "data.encoder=packaged", f"data.demo.size={SIZE}",
    "resources.dashboard=false", "batch_size=32", "clip_norm=1.0",
)  # fmt: skip
#: Points of the grid that the Trainer is run for, of two learning rates.
POINTS = (0, 5)


def ours() -> tuple[float, dict[int, tuple[dict, float]]]:
    """Seconds of the whole command, and each point's configuration with its last macro-F1 on validation."""
    start = time.perf_counter()
    events = run_search("tweets", "--scheduler", "none", "--epochs", str(EPOCHS), sets=SETS)
    seconds = time.perf_counter() - start
    params = {e["number"]: e["params"] for e in events if e["event"] == "trial"}
    scores = {e["number"]: e["metrics"]["val_macro_f1"] for e in events if e["event"] == "result"}
    return seconds, {number: (params[number], score) for number, score in scores.items()}


class Weighted(Trainer):
    """The Trainer with class weights and an encoder that stays in evaluation mode."""

    def __init__(self, *args, class_weights: torch.Tensor | None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.loss = nn.CrossEntropyLoss(class_weights)

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        model.distilbert.eval()
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = self.loss(outputs.logits, labels)
        return (loss, outputs) if return_outputs else loss


def rows(split: EncodedSplit) -> list[dict]:
    labels = split.labels.tolist()
    return [{"input_ids": split.ids[i].tolist(), "labels": label} for i, label in enumerate(labels)]


def theirs(params: dict, train: EncodedSplit, val: EncodedSplit) -> tuple[float, float]:
    """Seconds of training with an evaluation an epoch, and the last macro-F1 on validation."""
    torch.manual_seed(0)
    encoder = train.encoder.model()
    config = encoder.config
    config.num_labels, config.seq_classif_dropout = 2, params["dropout"]
    model = DistilBertForSequenceClassification(config)
    model.distilbert = encoder
    counts = np.bincount(train.labels)
    weights = torch.tensor(len(train) / (2 * counts), dtype=torch.float32)
    positive = int(np.argmin(counts))

    def score(predictions) -> dict[str, float]:
        probabilities = torch.from_numpy(predictions.predictions).softmax(1).numpy()[:, positive]
        truth = predictions.label_ids == positive
        return {"macro_f1": f1_score(truth, probabilities >= best_threshold(probabilities, truth), average="macro")}

    with tempfile.TemporaryDirectory() as folder:
        trainer = Weighted(
            model, TrainingArguments(
                folder, num_train_epochs=EPOCHS, learning_rate=params["lr"], per_device_train_batch_size=32,
                per_device_eval_batch_size=256, weight_decay=params["weight_decay"], lr_scheduler_type="cosine",
                warmup_steps=0, max_grad_norm=params["clip_norm"], eval_strategy="epoch", save_strategy="no",
                report_to="none", disable_tqdm=True, use_cpu=True, logging_strategy="no",
            ),
            train_dataset=rows(train), eval_dataset=rows(val), compute_metrics=score,
            data_collator=DataCollatorWithPadding(train.encoder.tokenizer()),
            class_weights=weights if params["weighting"] == "balanced" else None,
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
        return seconds, trainer.state.log_history[-2]["eval_macro_f1"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1, help="how often both are run")
    pairs = parser.parse_args().pairs
    config, task = load_config("tweets", SETS, {}), get_task("tweets")
    splits = task.prepare(config.data, None, Path(), lambda *_: None)
    ratios = []
    for pair in range(pairs):
        seconds, grid = ours()
        assert len(grid) == 12, f"{len(grid)} points"
        measured = {number: theirs(grid[number][0], splits.train, splits.val) for number in POINTS}
        scaled = statistics.mean(s for s, _ in measured.values()) * len(grid)
        ratios.append(scaled / seconds)
        print(
            f"pair {pair}: ours {seconds:.1f} s for {len(grid)} points; Trainer "
            + ", ".join(f"{s:.1f} s" for s, _ in measured.values())
            + f" for two of them, {scaled:.0f} s scaled: {ratios[-1]:.1f} x",
            flush=True,
        )
        for number, (_, macro_f1) in measured.items():
            print(f"  point {number}: macro-F1 {grid[number][1]:.4f}, Trainer {macro_f1:.4f}")
            if abs(macro_f1 - grid[number][1]) > TOLERANCE:
                print("the two do not agree about the result")
                return 1
    print(f"median of {pairs}: {statistics.median(ratios):.1f} x, claimed {CLAIM:g} x")
    return 0 if statistics.median(ratios) >= CLAIM else 1


if __name__ == "__main__":
    sys.exit(main())
