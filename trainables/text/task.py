"""The task of classifying texts. Tweets and lyrics inherit it and add the source of the texts."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from trainables.base.batches import Rows, read_only, rows_on, shuffled_rows
from trainables.base.classifiers import balanced_weights, predictions
from trainables.base.device import Device
from trainables.base.errors import InputError
from trainables.base.exported import load_weights, read_about, write_model
from trainables.base.files import UNLIMITED, read_files, read_whole
from trainables.base.finetuning import ALL, Rates
from trainables.base.optimizers import ALLOWED as OPTIMIZED
from trainables.base.optimizers import SCHEDULES, make_optimizer, make_schedule
from trainables.base.splitting import SPLITS
from trainables.base.survey import Finding, classes_found
from trainables.base.tables import TABLES, decode, named_lines
from trainables.base.task import Choices, DataInfo, Objective, Params, Progress, Splits
from trainables.base.training import Learner, fit_batches
from trainables.base.values import BELOW_ONE, COUNT, SWITCH, Allowed, Numbers, check_params
from trainables.text import encoders, look, lora, portable, reports, tables, tfidf
from trainables.text.batches import EncodedSplit, TextEncoding, batch, merge, similar_rows
from trainables.text.encoders import Encoder
from trainables.text.models import HEADS, TextNet, classification_loss, frozen_part, parameter_groups
from trainables.text.scores import SCORES, best_threshold, decide
from trainables.text.texts import TextSplit

#: The number of texts of a batch of the evaluation; it bounds the memory.
EVAL_BATCH = 256
#: Smaller probabilities count as this one, so that the logarithm is finite.
LEAST_PROBABILITY = 1e-12
#: Hyperparameters that decide which features of the frozen encoder a trial uses.
FROZEN_BY = ("model.head", "model.unfreeze", "model.pooling", "model.mask_padding")
#: The example program of a model that is a whole transformers checkpoint.
USAGE = """\
from transformers import pipeline

classify = pipeline("text-classification", model=".", top_k=None)
print(classify("a text", truncation=True, max_length={most}))
"""
#: The exponent of the focal loss; 2 is the paper's choice.
FOCUS = 2.0
#: The schedule of fine-tuning: the rates rise, then fall as a cosine, set before each step.
ONE_CYCLE = "one_cycle"
#: The allowed values of the hyperparameters.
ALLOWED: Allowed = {
    **OPTIMIZED, "schedule": (*SCHEDULES, ONE_CYCLE), "model.head": HEADS,
    "model.unfreeze": Numbers(whole=True, words=(ALL,)), "model.lora": Numbers(whole=True),
    "model.pooling": ("cls", "mean"),
    "model.mask_padding": SWITCH, "model.filters": COUNT, "model.tfidf": SWITCH, "model.characters": SWITCH,
    "tfidf_lr": Numbers(), "encoder_lr": Numbers(), "encoder_lr_decay": Numbers(),
    "weighting": ("none", "balanced", "focal"), "dropout": BELOW_ONE,
    "clip_norm": Numbers(above=True, null=True), "batch_size": COUNT,
}  # fmt: skip


class TextTask:
    """Base class of the text tasks, which add the source of the texts and the objective, one of `SCORES`."""

    name: str
    objective: Objective
    #: A phrase: a description of the demo's texts, and the option for other texts.
    made: str
    allowed = ALLOWED

    def read(self, data: dict[str, Any], source: Path) -> Splits:
        """Reads the texts at `source` as splits of `TextSplit`; raises InputError."""
        raise NotImplementedError

    def demo(self, data: dict[str, Any]) -> Splits:
        """Makes the demo's texts as splits of `TextSplit`."""
        raise NotImplementedError

    def describe_source(self, data: dict[str, Any]) -> str:
        return f"demo: {data['demo']['size']} {self.made}; {encoders.choose(data['encoder'])[1]}"

    def prepare(self, data: dict[str, Any], source: Path | None, cache: Path, progress: Progress) -> Splits:
        progress(0, 1, "reading the texts")
        splits = self.demo(data) if source is None else self.read(data, source)
        progress(0, 1, "loading the encoder")
        name, note = encoders.choose(data["encoder"])
        encoders.check(name)
        encoder = encoders.load(name)
        if not 3 <= data["max_length"] <= encoder.most:
            raise InputError(f"data.max_length: {data['max_length']}: allowed are 3 to {encoder.most} tokens")
        tokenizer = encoder.tokenizer()

        def encoded(split: TextSplit) -> EncodedSplit:
            progress(0, 1, f"cutting {len(split):,} texts into tokens")
            ids = encoders.tokenize(tokenizer, split.texts, data["max_length"])
            return EncodedSplit(split.texts, split.labels, ids, encoder, data["max_length"])

        info = replace(splits.info, notes=(*splits.info.notes, note), chosen={"encoder": name})
        return Splits(encoded(splits.train), encoded(splits.val), encoded(splits.test), info)

    def leaks(self, splits: Splits) -> list[Finding]:
        return look.near_duplicates(splits)

    def overview(self, splits: Splits) -> list[Finding]:
        return [classes_found(splits), look.lengths(splits), look.some_texts(splits)]

    def precompute(self, splits: Splits, choices: Choices, device: Device, cache: Path, progress: Progress) -> Splits:
        """Computes the features that trials share.

        Each split gets the features of the frozen encoder for every combination of `FROZEN_BY` in the space. Train and
        validation get the TF-IDF features.
        """
        encoder: Encoder = splits.train.encoder
        needed = set()
        for values in itertools.product(*(choices[key] or () for key in FROZEN_BY)):
            params = dict(zip(FROZEN_BY, values, strict=True))
            check_params(self.allowed, params)
            _check_blocks(params["model.unfreeze"], encoder)
            needed.add(frozen_part(params, encoder.layers, splits.train.max_length))
        if any(choices.get("model.lora") or ()):
            lora.check()
        model, parts = encoder.model(), sorted(needed - {None}, key=repr)

        def computed(split: EncodedSplit, name: str) -> EncodedSplit:
            def report(done: int, total: int, what: str) -> None:
                progress(done, total, f"{what} the texts of {name} with {splits.info.chosen['encoder']}")

            features = partial(encoders.cached_features, model, split.ids, device=device, cache=cache, progress=report)
            split = replace(split, features={part: features(part) for part in parts if part})
            if all_terms is None or name == "test":  # the final model has other terms: those of train and validation
                return split
            progress(0, 1, f"TF-IDF of the {len(split):,} texts of {name}")
            matrix = all_terms.transform(split.texts)
            return replace(split, counted={kind: (own, matrix[:, : len(own)]) for kind, own in terms.items()})

        all_terms, terms = None, {}
        if True in (choices["model.tfidf"] or ()):
            kinds = {bool(characters) for characters in choices.get("model.characters") or (False,)}
            progress(0, 1, f"TF-IDF: the terms of {len(splits.train):,} texts")
            all_terms = tfidf.fit(splits.train.texts, True in kinds)
            terms = {characters: all_terms if characters else all_terms.words for characters in kinds}
        train, val, test = (computed(getattr(splits, name), name) for name in SPLITS)
        return Splits(train, val, test, splits.info)

    def build(self, params: Params, splits: Splits, epochs: int, device: Device) -> Learner:
        check_params(self.allowed, params)
        train: EncodedSplit = splits.train
        counts = np.bincount(train.labels, minlength=len(splits.info.classes))
        terms, characters = None, bool(params.get("model.characters"))
        if params["model.tfidf"]:
            terms = train.counted[characters][0] if characters in train.counted else tfidf.fit(train.texts, characters)
        encoding = TextEncoding(train.encoder, train.max_length, splits.info.classes, int(np.argmin(counts)), terms)
        learner = _learner(params, encoding, epochs, device)
        weights = balanced_weights(train.labels, len(counts))
        learner.extra["class_weights"] = weights.to(device.torch_device)
        return learner

    def train_epoch(self, learner: Learner, split: EncodedSplit) -> dict[str, float]:
        params, device = learner.params, learner.device.torch_device
        labels = read_only(split.labels).to(device)
        weights = learner.extra["class_weights"] if params["weighting"] == "balanced" else None
        focus = FOCUS if params["weighting"] == "focal" else 0.0
        changes_each_step = params["schedule"] == ONE_CYCLE
        advance = Rates(learner, len(split), head_epochs=0).advance if changes_each_step else lambda samples: None

        def forward(index: Rows) -> tuple[torch.Tensor, int, dict[str, torch.Tensor]]:
            logits, truth = learner.model(batch(learner, split, index)), labels[index.there]
            advance(len(truth))
            loss = classification_loss(logits, truth, weights, focus)
            return loss, len(truth), {"accuracy": (logits.argmax(1) == truth).sum().float()}

        net: Any = learner.model
        if net.opened is None:
            batches = shuffled_rows(len(split), params["batch_size"], device)
        else:
            batches = similar_rows(split.ids.lengths, params["batch_size"], device)
        return fit_batches(learner, batches, forward, params["clip_norm"])

    def evaluate(self, learner: Learner, split: EncodedSplit) -> dict[str, float]:
        from sklearn.metrics import average_precision_score, confusion_matrix

        encoding: TextEncoding = learner.extra["encoding"]
        probabilities, threshold = _probabilities(learner, split), learner.params.get("threshold")
        metrics = {"loss": float(F.nll_loss(torch.from_numpy(probabilities).log(), read_only(split.labels)))}
        if len(encoding.classes) == 2:
            truth, positive = split.labels == encoding.positive, probabilities[:, encoding.positive]
            if threshold is None:  # a trial of the search: `split` is validation
                threshold = best_threshold(positive, truth)
            metrics |= {
                "threshold": threshold,
                "average_precision": float(average_precision_score(truth, positive)),
            }
        predicted = decide(probabilities, encoding.positive, threshold)
        matrix = confusion_matrix(split.labels, predicted, labels=range(len(encoding.classes)))
        return metrics | {
            "accuracy": float((predicted == split.labels).mean()),
            **{name: float(score(matrix)) for name, score in SCORES.items()},
            **{
                f"accuracy/{name}": float((predicted[split.labels == code] == code).mean())
                for code, name in enumerate(encoding.classes)
            },
        }

    def answer(self, learner: Learner, split: EncodedSplit) -> Callable[[], object]:
        """The answer includes the tokens and the frozen encoder of the text, which a search computes only once."""
        encoder: Encoder = learner.extra["encoding"].encoder
        loaded = {"tokenizer": encoder.tokenizer(), "encoder": encoder.model()}
        text = split.texts[[int(split.ids.lengths.argmax())]]

        def answer() -> object:
            model = replace(learner, extra=learner.extra | loaded)  # keeps no data of an answer
            return _probabilities(model, _encoded(model, text))

        return answer

    def units(self, learner: Learner, split: EncodedSplit) -> np.ndarray:
        """(texts, classes^2): for each text the flat confusion matrix of this text alone."""
        encoding: TextEncoding = learner.extra["encoding"]
        predicted = decide(_probabilities(learner, split), encoding.positive, learner.params.get("threshold"))
        cells = split.labels * len(encoding.classes) + predicted
        return np.eye(len(encoding.classes) ** 2, dtype=np.float32)[cells]

    def objective_of(self, sums: np.ndarray) -> np.ndarray:
        classes = math.isqrt(sums.shape[-1])
        return SCORES[self.objective.metric](sums.reshape(*sums.shape[:-1], classes, classes))

    def merge(self, splits: Splits) -> EncodedSplit:
        return merge(splits.train, splits.val)

    def baselines(self, splits: Splits) -> dict[str, float]:
        """TF-IDF with logistic regression, fitted to train and validation like the final model."""
        from sklearn.metrics import confusion_matrix

        both, test = self.merge(splits), splits.test
        predicted = tfidf.baseline(TextSplit(both.texts, both.labels), test.texts)
        matrix = confusion_matrix(test.labels, predicted, labels=range(len(splits.info.classes)))
        return {"tfidf": float(SCORES[self.objective.metric](matrix))}

    def artifacts(self, learner: Learner, split: EncodedSplit, info: DataInfo, folder: Path) -> None:
        probabilities, encoding = _probabilities(learner, split), learner.extra["encoding"]
        predicted = decide(probabilities, encoding.positive, learner.params.get("threshold"))
        reports.write(split, predicted, probabilities, info.classes, encoding.positive, folder)

    def export(self, learner: Learner, info: DataInfo, folder: Path) -> None:
        """Writes a transformers checkpoint with its tokenizer, the network's weights, and the settings for `load`.

        With the classifier head on CLS features of a DistilBERT and without TF-IDF, the checkpoint is the whole model,
        a `DistilBertForSequenceClassification`; else it is the encoder, and `portable.write` adds files with which the
        model loads without this project.
        """
        net: Any = learner.model
        encoding: TextEncoding = learner.extra["encoding"]
        model = encoding.encoder.model()
        net.write_encoder(model)
        whole = net.is_sequence_classifier and encoding.encoder.is_distilbert
        if whole:
            model = net.as_sequence_classifier(model, info.classes)
            (folder / "usage.py").write_text(USAGE.format(most=encoding.max_length))
        model.cpu().save_pretrained(folder)
        encoding.encoder.tokenizer().save_pretrained(folder)
        if encoding.terms:
            tfidf.save(encoding.terms, folder / "tfidf.json")
        params = learner.params
        if net.opened is not None or net.adapters:  # the checkpoint has the trained encoder: for `load` it is frozen
            params = params | {"model.unfreeze": 0, "model.lora": 0}
            net = net.without_encoder()
        about = {
            "params": params, "max_length": encoding.max_length, "classes": encoding.classes,
            "positive": encoding.positive,
        }  # fmt: skip
        write_model(folder, about, net, "net.pt")
        if not whole:
            loaded = self.load(folder)

            def predict(texts: list[str]) -> np.ndarray:
                return _probabilities(loaded, _encoded(loaded, np.array(texts, dtype=object)))

            portable.write(loaded.model, loaded.extra["encoding"], params, predict, folder)  # type: ignore[arg-type]

    def load(self, folder: Path) -> Learner:
        about = read_about(folder)
        terms = tfidf.load(folder / "tfidf.json") if (folder / "tfidf.json").exists() else None
        encoder, classes = encoders.load(str(folder)), tuple(about["classes"])
        encoding = TextEncoding(encoder, about["max_length"], classes, about["positive"], terms)
        learner = _learner(about["params"], encoding, 1, Device(torch.device("cpu")))
        load_weights(learner.model, folder / "net.pt")
        learner.extra |= {"tokenizer": encoder.tokenizer(), "encoder": encoder.model()}
        return learner

    def inputs(self, arguments: Sequence[str]) -> pd.DataFrame:
        """A frame with a column `text`: texts, lines or tables of files, or lines of stdin (`-`)."""
        named: list[tuple[str, str]] = []
        for argument in arguments:
            path = Path(argument)
            if argument == "-":
                named += named_lines("stdin", sys.stdin.read())
            elif path.is_file() and {*map(str.lower, path.suffixes[-2:])} & {*TABLES, ".zip"}:
                for name, content in read_files(path, TABLES, UNLIMITED):
                    column = tables.read_column(content, name, argument)
                    named += [(f"{argument}:{row}", text) for row, text in enumerate(column, 1)]
            elif path.is_file():
                named += named_lines(argument, decode(read_whole(path), argument))
            elif path.suffix.lower() in (*TABLES, ".txt") and " " not in argument:
                raise InputError(f"{argument}: no such file")
            else:
                named.append((argument, argument))
        if not named:
            raise InputError(f"{', '.join(arguments)}: no text there")
        return pd.DataFrame({"text": [text for _, text in named]}, index=[name for name, _ in named])

    def predict(self, model: Learner, frame: pd.DataFrame) -> pd.DataFrame:
        """A frame with a column `text` -> `class`, `probability` and a column a class."""
        encoding: TextEncoding = model.extra["encoding"]
        probabilities = _probabilities(model, _encoded(model, frame["text"].astype(str).to_numpy(dtype=object)))
        predicted = decide(probabilities, encoding.positive, model.params.get("threshold"))
        return predictions(probabilities, predicted, encoding.classes, frame.index)

    def example(self, split: EncodedSplit, info: DataInfo) -> pd.DataFrame:
        return pd.DataFrame({"text": split.texts[:100].astype(str)})


def _learner(params: Params, encoding: TextEncoding, epochs: int, device: Device) -> Learner:
    net = TextNet(encoding.encoder, params, len(encoding.classes), encoding.max_length, len(encoding.terms or ()))
    net = net.to(device.torch_device)
    optimizer = make_optimizer(parameter_groups(net, params), params)
    schedule = None if params["schedule"] == ONE_CYCLE else make_schedule(optimizer, params["schedule"], epochs)
    return Learner(net, optimizer, schedule, device, params, extra={"encoding": encoding, "epochs": epochs})


def _encoded(model: Learner, texts: np.ndarray) -> EncodedSplit:
    """The texts with the features that a loaded model needs; their labels are 0."""
    encoding: TextEncoding = model.extra["encoding"]
    ids = encoders.tokenize(model.extra["tokenizer"], texts, encoding.max_length)
    part = frozen_part(model.params, encoding.encoder.layers, encoding.max_length)
    features = {}
    if part is not None:
        features[part] = encoders.encode(model.extra["encoder"], ids, part, model.device, lambda *_: None)
    nothing = np.zeros(len(texts), dtype=np.int64)
    return EncodedSplit(texts, nothing, ids, encoding.encoder, encoding.max_length, features)


def _check_blocks(opened: int | str | None, encoder: Encoder) -> None:
    """Raises InputError if the encoder cannot train this number of blocks."""
    if opened in (None, 0, ALL):
        return
    if not encoder.cut:
        raise InputError(
            f"space.model.unfreeze: {opened}: blocks of {encoder.config['model_type']} encoders cannot train alone; "
            "allowed are 0 and all"
        )
    if not 0 <= int(opened) <= encoder.layers:
        raise InputError(f"space.model.unfreeze: {opened}: the encoder has {encoder.layers} blocks")


def _probabilities(learner: Learner, split: EncodedSplit) -> np.ndarray:
    """(n, classes) float32, in the order of the split."""
    return learner.output(split, lambda: _computed_probabilities(learner, split))


@torch.no_grad()
def _computed_probabilities(learner: Learner, split: EncodedSplit) -> np.ndarray:
    learner.model.eval()
    out = np.empty((len(split), len(learner.extra["encoding"].classes)), dtype=np.float32)
    order = np.argsort(split.ids.lengths, kind="stable")
    batches = [order[start : start + EVAL_BATCH] for start in range(0, len(order), EVAL_BATCH)]
    with learner.device.autocast():
        rows = rows_on(learner.device.torch_device, batches)
        probabilities = [
            learner.model(batch(learner, split, index)).softmax(1).clamp_min(LEAST_PROBABILITY) for index in rows
        ]
    out[order] = torch.cat(probabilities).cpu().numpy()
    return out
