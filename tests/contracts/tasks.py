"""A made-up target of every task, estimators that say what they are told, and every column once more by hand.

A new task joins by one line in ``EXAMPLES`` and the functions it names.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sklearn.metrics as sk
from scipy import stats
from seqeval import metrics as seqeval
from seqeval.scheme import IOB2
from sklearn.dummy import DummyClassifier, DummyRegressor

from probekit.tasks import Target
from probekit.tasks.read import read_target
from probekit.tasks.tags import read_tags

N = 60
STRICT = {"mode": "strict", "scheme": IOB2, "zero_division": 0}


def _ids(n: int) -> Any:
    return [str(i) for i in range(n)]


def _classes(rng: Any) -> Target:
    values = np.array(["ab", "cd", "ef"], dtype=object)[rng.choice(3, N, p=[0.5, 0.3, 0.2])]
    values[::9] = None
    return read_target(values, "label", ids=_ids(N))


def _numbers(rng: Any) -> Target:
    values = np.round(rng.standard_normal(N) * 3 + 100, 1)
    values[::9] = np.nan
    return read_target(values, "height", ids=_ids(N))


def _labels(rng: Any) -> Target:
    rows = [[name for name, p in (("x", 0.7), ("y", 0.4), ("z", 0.2)) if rng.random() < p] for _ in range(N)]
    cells = np.array([None if i % 9 == 0 else json.dumps(row) for i, row in enumerate(rows)], dtype=object)
    return read_target(cells, "moods", ids=_ids(N))


def _tagged(rng: Any, tags_of: Callable[[Any, int], list[str]]) -> Target:
    lengths = rng.integers(1, 8, N)
    words = [[str(word) for word in rng.choice(list("abcdefghijklmnopqrstuvw"), n)] for n in lengths]
    lists = [None if i % 9 == 0 else tags_of(rng, n) for i, n in enumerate(lengths)]
    unread = rng.random(int(lengths.sum())) < 0.15
    return read_tags(lists, "tag", words=words, ids=_ids(N), unread=unread)


def _parts_of_speech(rng: Any, n: int) -> list[str]:
    return [str(tag) for tag in rng.choice(["NOUN", "VERB", "DET"], n, p=[0.5, 0.3, 0.2])]


def _entity_tags(rng: Any, n: int) -> list[str]:
    tags: list[str] = []
    while len(tags) < n:
        kind, length = rng.choice(["per", "loc"]), int(rng.integers(1, 3))
        tags += [f"B-{kind}", *[f"I-{kind}"] * (length - 1)] if rng.random() < 0.4 else ["O"]
    return tags[:n]


@dataclass(frozen=True)
class Asked:
    """What is asked of a task: ``answers`` for the rows of ``test``, and probabilities where there are any."""

    target: Target
    train: Any
    test: Any
    answers: Any
    probability: Any = None

    @property
    def truth(self) -> Any:
        return self.target.truth[self.target.rows_of(self.test)]

    @property
    def names(self) -> tuple[list[str], list[str]]:
        """Tags of the words of ``test``: true ones, and answered ones ("" for none)."""
        classes = self.target.classes
        return [str(classes[c]) for c in self.truth], [str(classes[c]) if c >= 0 else "" for c in self.answers]

    @property
    def sentences(self) -> tuple[list[list[str]], list[list[str]]]:
        sides: tuple[list[list[str]], list[list[str]]] = ([], [])
        for side, flat in zip(sides, self.names, strict=True):
            rest = iter(flat)
            side += [[next(rest) for _ in range(self.target.of_words.lengths[unit])] for unit in self.test]
        return sides


def _of_classes(asked: Asked) -> dict[str, float]:
    truth, answers, p = asked.truth, asked.answers, asked.probability
    known = range(len(asked.target.classes))
    return {
        "accuracy": sk.accuracy_score(truth, answers),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, answers),
        "macro_f1": sk.f1_score(truth, answers, average="macro", zero_division=0),
        "mcc": sk.matthews_corrcoef(truth, answers),
        "log_loss": np.nan if p is None else sk.log_loss(truth, p, labels=known),
        "auroc": np.nan if p is None else float(np.mean([sk.roc_auc_score(truth == c, p[:, c]) for c in known])),
    }


def _of_numbers(asked: Asked) -> dict[str, float]:
    truth, answers = asked.truth, asked.answers
    return {
        "r2": sk.r2_score(truth, answers),
        "rmse": sk.root_mean_squared_error(truth, answers),
        "mae": sk.mean_absolute_error(truth, answers),
        "pearson": stats.pearsonr(truth, answers).statistic,
        "spearman": stats.spearmanr(truth, answers).statistic,
    }


def _of_labels(asked: Asked) -> dict[str, float]:
    truth, answers, p = asked.truth, asked.answers, asked.probability
    return {
        "accuracy": sk.accuracy_score(truth, answers),
        "micro_f1": sk.f1_score(truth, answers, average="micro"),
        "macro_f1": sk.f1_score(truth, answers, average="macro"),
        "auroc": np.nan if p is None else sk.roc_auc_score(truth, p, average="macro"),
    }


def _of_words(asked: Asked) -> dict[str, float]:
    target, (truth, answers) = asked.target, asked.names
    words = target.of_words
    ends = np.cumsum(words.lengths)
    train, test = (
        [k for i in units for k in range(ends[i] - words.lengths[i], ends[i])] for units in (asked.train, asked.test)
    )
    seen = {words.types[k] for k in train}
    commonest = Counter(sorted(str(target.classes[target.codes[k]]) for k in train)).most_common(1)[0][0]
    new = [t == a for k, t, a in zip(test, truth, answers, strict=True) if words.types[k] not in seen]
    return {
        "accuracy": sum(t == a for t, a in zip(truth, answers, strict=True)) / len(truth),
        "commonest_accuracy": truth.count(commonest) / len(truth),
        "oov_accuracy": sum(new) / len(new) if new else np.nan,
        "n_words": len(truth),
        "n_words_lost": sum(bool(words.unread[k]) for k in test),
    }


def _of_tags(asked: Asked) -> dict[str, float]:
    truth, answers = asked.names
    f1 = sk.f1_score(truth, answers, labels=sorted(set(truth)), average="macro", zero_division=0)
    return _of_words(asked) | {"macro_f1": f1}


def _of_entities(asked: Asked) -> dict[str, float]:
    truth, answers = asked.sentences
    return _of_words(asked) | {
        "entity_f1": seqeval.f1_score(truth, answers, **STRICT),
        "entity_precision": seqeval.precision_score(truth, answers, **STRICT),
        "entity_recall": seqeval.recall_score(truth, answers, **STRICT),
        "entity_f1_lenient": seqeval.f1_score(truth, answers, zero_division=0),
        "viterbi_gain": np.nan,
    }


def _rows_by_class(asked: Asked) -> dict[str, tuple[float, ...]]:
    target = asked.target
    if target.words is None and not target.task.several:
        truth, answers = target.classes[asked.truth], target.classes[asked.answers]
    else:
        truth, answers = (asked.truth, asked.answers) if target.task.several else asked.names
    labels = range(len(target.classes)) if target.task.several else target.classes
    found = sk.precision_recall_fscore_support(truth, answers, labels=list(labels), zero_division=0)
    return dict(zip(map(str, target.classes), zip(*found, strict=True), strict=True))


def _rows_by_type(asked: Asked) -> dict[str, tuple[float, ...]]:
    report = seqeval.classification_report(*asked.sentences, output_dict=True, **STRICT)
    columns = ("precision", "recall", "f1-score", "support")
    return {kind: tuple(row[c] for c in columns) for kind, row in report.items() if not kind.endswith(" avg")}


def _no_rows(_asked: Asked) -> dict[str, tuple[float, ...]]:
    return {}


def _dummy_class(target: Target, train: Any, n: int) -> Any:
    """Of words, too: one row for each of them."""
    y = target.codes[target.rows_of(train)]
    return DummyClassifier(strategy="most_frequent").fit(y[:, None], y).predict(np.zeros((n, 1)))


def _dummy_number(target: Target, train: Any, n: int) -> Any:
    return DummyRegressor().fit(train[:, None], target.y[train]).predict(np.zeros((n, 1)))


def _dummy_labels(target: Target, train: Any, n: int) -> Any:
    return DummyClassifier(strategy="most_frequent").fit(train[:, None], target.y[train]).predict(np.zeros((n, 1)))


@dataclass(frozen=True)
class Example:
    """``make(rng)``: a target, some units without a label. The others are what a task answers, by hand."""

    make: Callable[[Any], Target]
    columns: Callable[[Asked], dict[str, float]]
    class_rows: Callable[[Asked], dict[str, tuple[float, ...]]]
    dummy: Callable[[Target, Any, int], Any]


EXAMPLES: dict[str, Example] = {
    "classification": Example(_classes, _of_classes, _rows_by_class, _dummy_class),
    "regression": Example(_numbers, _of_numbers, _no_rows, _dummy_number),
    "multilabel": Example(_labels, _of_labels, _rows_by_class, _dummy_labels),
    "tags": Example(lambda rng: _tagged(rng, _parts_of_speech), _of_tags, _rows_by_class, _dummy_class),
    "entities": Example(lambda rng: _tagged(rng, _entity_tags), _of_entities, _rows_by_type, _dummy_class),
}


def example(name: str, seed: int = 0) -> tuple[Target, Any, Any]:
    """A target, and units in no order to train and to test on."""
    rng = np.random.default_rng(seed)
    target = EXAMPLES[name].make(rng)
    units = rng.permutation(target.units)
    return target, units[: N // 2], units[N // 2 :]


class Known:
    """An estimator that answers for row k what it is told for row k; ``probability``: (n_rows, n_classes)."""

    def __init__(self, target: Target, answers: Any, probability: Any = None) -> None:
        self.answers = answers
        self.classes_: Any = target.classes
        if target.task.several:
            self.classes_ = [np.array([0, 1]) for _ in target.classes]
        if probability is not None:
            several = target.task.several
            self.predict_proba = lambda X: (
                [np.column_stack([1 - p, p]) for p in probability[X[:, 0]].T] if several else probability[X[:, 0]]
            )

    def predict(self, X: Any) -> Any:
        return self.answers[X[:, 0]]


class Numbered:
    """States that are the numbers of their rows; only those that have a label and a state may be read."""

    def __init__(self, target: Target) -> None:
        self.allowed = set(target.readable(target.units).tolist())

    def rows(self, which: Any) -> Any:
        assert set(which.tolist()) <= self.allowed
        return np.asarray(which)[:, None]


def mostly_right(target: Target, seed: int = 1) -> Any:
    """Answers for all rows, in the form of ``truth``."""
    rng = np.random.default_rng(seed)
    truth = np.nan_to_num(target.truth, nan=0.0)
    wrong = rng.random(truth.shape) < 0.3
    if not len(target.classes):
        return truth + rng.standard_normal(len(truth))
    if target.task.several:
        return np.where(wrong, 1 - truth, truth)
    return np.where(wrong | (truth < 0), rng.integers(0, len(target.classes), len(truth)), truth)


def as_labels(target: Target, answers: Any) -> Any:
    """As an estimator says it that was fitted on ``target.y``."""
    return target.classes[answers] if len(target.codes) else answers


def probabilities(target: Target, seed: int = 2) -> Any:
    """(n_rows, n_classes); of several labels each by itself."""
    p = np.random.default_rng(seed).random((len(target.truth), len(target.classes))) + 0.01
    return p / 1.02 if target.task.several else p / p.sum(axis=1, keepdims=True)


def with_other_labels(target: Target, units: Any, seed: int = 3) -> Target:
    """Other labels for ``units``; absurd ones where they have none."""
    rng = np.random.default_rng(seed)
    rows, y, codes = target.rows_of(units), target.y.copy(), target.codes.copy()
    missing = not np.isin(units, target.units).any()
    if len(codes):
        codes[rows] = 10**6 if missing else rng.integers(0, len(target.classes), len(rows))
        y[rows] = "?" if missing else target.classes[codes[rows]]
    else:
        y[rows] = 10**6 if missing else rng.integers(0, 2, y[rows].shape)
    return replace(target, y=y, codes=codes)
