"""Heads as scikit-learn's estimators: an mlp over rows, or attention over the tokens of texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from probekit.errors import SpecError
from probekit.heads.loop import Group, History, Recipe, Rows, plain_batches, train
from probekit.heads.losses import CLASSES, NUMBERS, class_logits, n_answers
from probekit.heads.modules import Head, Ragged, Read, Shape, make_head, penalised
from probekit.ragged import RaggedArray

KINDS = ("mlp", "attention")
HELD_OUT = 0.1
"""Of the rows that an estimator is fitted on, where it has to find out by itself when to stop."""
AT_ONCE = 256
"""Rows that are answered together."""


@dataclass(frozen=True)
class _Truth:
    """What is learnt. ``y``: (n, ...) what ``wrongness(logits, y)`` compares with. ``half``: see ``losses.Link``."""

    y: Tensor
    n_answers: int
    wrongness: Callable[[Tensor, Tensor], Tensor]
    half: float


class TrainedHead(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """What classifier and regressor have in common: parameters, training, and the logits of the weights that were kept.

    ``kind``: "mlp" reads X (n, d); "attention" a ``RaggedArray`` of the tokens of n texts. ``width``: hidden units of
    an mlp. ``penalty``: of the squares of the weights, beside the mean loss (scikit-learn's ``1 / (n C)``, and
    ``alpha / n`` of ridge on standardised numbers). ``lr``: the largest learning rate; it rises at first and falls to
    zero by the end of ``epochs``.

    ``stop``: a number of epochs; all rows are learnt from, and training ends after so many of ``epochs``. None: a tenth
    of the rows (in proportion, drawn by ``random_state``) is held out, training ends after ``patience`` epochs without
    a better loss there, and the weights of the best epoch are kept; where a tenth is less than a row, all epochs are
    done.

    Fitted, it has ``weights_``, the arrays of the torch module by name, and ``n_epochs_``, after which they were kept.
    One thread is used, and neither the number of threads nor any generator of the caller's is changed.
    """

    def __init__(  # noqa: PLR0913  (scikit-learn has no other place for them)
        self,
        kind: str = "mlp",
        *,
        width: int = 128,
        dropout: float = 0.1,
        penalty: float = 1e-2,
        lr: float = 1e-3,
        epochs: int = 30,
        batch_size: int = 32,
        patience: int = 5,
        stop: int | None = None,
        random_state: int = 0,
    ) -> None:
        self.kind = kind
        self.width = width
        self.dropout = dropout
        self.penalty = penalty
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.patience = patience
        self.stop = stop
        self.random_state = random_state

    @property
    def of_tokens(self) -> bool:
        """Whether it reads the states of tokens."""
        return self.kind == "attention"

    def _train(
        self, X: Any, truth: _Truth, rows: Rows, held: Rows, *, patience: int, stop: int | None = None
    ) -> History:
        """Learn from ``rows``, look at ``held`` after each epoch, and keep the weights."""
        with _one_thread(), torch.enable_grad():
            read = _reader(X, of_tokens=self.of_tokens)
            head = make_head(self._shape(X.shape[1], truth.n_answers), seed=self.random_state)
            with torch.no_grad():
                head.standardise.measure([head.features(read(some)) for some in _parts(rows)])
            problem = _Problem(self, head, read, truth, rows=rows, held=held)
            history = train(
                problem,
                Recipe(
                    epochs=self.epochs,
                    batch_size=self.batch_size,
                    patience=patience,
                    seed=self.random_state,
                    stop=stop,
                ),
            )
        self.weights_ = {name: value.numpy().copy() for name, value in head.state_dict().items()}
        self.n_features_in_ = int(X.shape[1])
        self.n_epochs_ = history.best
        return history

    def _logits(self, X: Any, n_out: int) -> Tensor:
        """(n, n_out) float64, without dropout."""
        check_is_fitted(self, "weights_")
        if X.shape[1] != self.n_features_in_:
            raise SpecError("X", f"must have {self.n_features_in_} features", str(X.shape[1]))
        with _one_thread(), torch.no_grad():
            head = make_head(self._shape(self.n_features_in_, n_out), seed=0)
            head.load_state_dict({name: torch.tensor(value) for name, value in self.weights_.items()})
            return _answered(head, _reader(X, of_tokens=self.of_tokens), np.arange(len(X))).double()

    def _shape(self, d: int, n_out: int) -> Shape:
        if self.kind not in KINDS:
            raise SpecError(f"kind {self.kind!r}", f"one of {', '.join(KINDS)}")
        return Shape(self.kind, d, n_out, self.width, self.dropout)


class HeadClassifier(ClassifierMixin, TrainedHead):  # type: ignore[misc]
    """A head that answers with one class for each row: softmax and log-loss."""

    def fit(self, X: Any, y: NDArray[Any]) -> Self:
        """Train on ``X``, n rows, and ``y`` (n,) of any dtype. Raises SpecError for rows that it can't read."""
        y, rows = np.asarray(y), np.arange(len(X))
        held = rows[:0] if self.stop is not None else held_out(y, self.random_state)
        rows = np.setdiff1d(rows, held)
        self._train(X, self._learn(y, rows), rows, held, patience=self.patience, stop=self.stop)
        return self

    def scores_by_epoch(self, X: Any, y: NDArray[Any], rows: Rows, held: Rows) -> NDArray[np.float64]:
        """(``epochs`` + 1,) minus the log-loss of the rows ``held``, before and after each epoch on ``rows``.

        Rows of a class that ``rows`` lack are left out; NaN where no other is held.
        """
        truth = self._learn(np.asarray(y), rows)
        known = held[truth.y[torch.from_numpy(held)].numpy() >= 0]
        history = self._train(X, truth, rows, known, patience=self.epochs + 1)
        return np.array(history.scores)[:, 0] if len(known) else np.full(self.epochs + 1, np.nan)

    def _learn(self, y: NDArray[Any], rows: Rows) -> _Truth:
        """Codes among the classes of ``rows``; -1 for another class."""
        self.classes_ = np.unique(y[rows])
        codes = np.minimum(np.searchsorted(self.classes_, y), len(self.classes_) - 1)
        codes[self.classes_[codes] != y] = -1
        n_out = n_answers(CLASSES, len(self.classes_))
        return _Truth(torch.from_numpy(codes.astype(np.int64)), n_out, CLASSES.wrongness, CLASSES.half)

    def predict(self, X: Any) -> NDArray[Any]:
        """(n,) classes."""
        return np.asarray(self.classes_[np.argmax(self.predict_proba(X), axis=1)])

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """(n, n_classes) in the order of ``classes_``."""
        check_is_fitted(self, "weights_")
        logits = self._logits(X, n_answers(CLASSES, len(self.classes_)))
        return np.asarray(torch.softmax(class_logits(logits), 1).numpy())


class HeadRegressor(RegressorMixin, TrainedHead):  # type: ignore[misc]
    """A head that answers with numbers, which are standardised inside: squared error."""

    def fit(self, X: Any, y: NDArray[Any]) -> Self:
        """Train on ``X``, n rows, and ``y`` (n,) or (n, n_targets). Raises SpecError for rows that it can't read."""
        y, rows = np.asarray(y), np.arange(len(X))
        held = rows[:0] if self.stop is not None else held_out(np.zeros(len(y)), self.random_state)
        rows = np.setdiff1d(rows, held)
        self._train(X, self._learn(y, rows), rows, held, patience=self.patience, stop=self.stop)
        return self

    def scores_by_epoch(self, X: Any, y: NDArray[Any], rows: Rows, held: Rows) -> NDArray[np.float64]:
        """(``epochs`` + 1,) R² of the rows ``held``, before and after each epoch on ``rows``; NaN for less than two.

        Of several numbers that of all together, each standardised.
        """
        truth = self._learn(np.asarray(y), rows)
        variance = float(truth.y[torch.from_numpy(held)].var(0, correction=0).mean()) if len(held) > 1 else 0.0
        history = self._train(X, truth, rows, held, patience=self.epochs + 1)
        return 1 + np.array(history.scores)[:, 0] / variance if variance else np.full(self.epochs + 1, np.nan)

    def _learn(self, y: NDArray[Any], rows: Rows) -> _Truth:
        """Standardised by ``rows``."""
        numbers = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
        self.mean_, scale = numbers[rows].mean(axis=0), numbers[rows].std(axis=0)
        self.scale_ = np.where(scale > 0, scale, 1.0)
        self.one_target_ = y.ndim == 1
        standard = torch.from_numpy(((numbers - self.mean_) / self.scale_).astype(np.float32))
        return _Truth(standard, numbers.shape[1], _squares, NUMBERS.half)

    def predict(self, X: Any) -> NDArray[np.float64]:
        """(n,) or (n, n_targets), in their own units."""
        check_is_fitted(self, "weights_")
        numbers = self._logits(X, len(self.mean_)).numpy() * self.scale_ + self.mean_
        return np.asarray(numbers[:, 0] if self.one_target_ else numbers)


def held_out(strata: NDArray[Any], seed: int) -> Rows:
    """A tenth of the rows of each of ``strata`` (n,), rounded; drawn by ``seed``, ascending."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(strata == name) for name in np.unique(strata)]
    return np.sort(np.concatenate([rng.permutation(m)[: int(HELD_OUT * len(m) + 0.5)] for m in members]))


def _squares(logits: Tensor, truth: Tensor) -> Tensor:
    """(n,) mean over targets."""
    return ((logits - truth) ** 2).mean(1)


class _Problem:
    """A head on rows in memory, for ``loop.train``."""

    def __init__(
        self, settings: TrainedHead, head: Head, read: Callable[[Rows], Read], truth: _Truth, *, rows: Rows, held: Rows
    ) -> None:
        self.head, self.read, self.truth = head, read, truth
        self.rows, self.held, self.penalty = rows, held, settings.penalty
        self.targets: Sequence[str] = ("y",)
        self.groups: Sequence[Group] = (Group(list(head.parameters()), settings.lr),)
        self.looked = 0

    def batches(self, rng: np.random.Generator, size: int) -> list[Rows]:
        """The rows that are learnt from, mixed."""
        return plain_batches(self.rows, rng, size)

    def loss(self, rows: Rows, of: Rows, active: Sequence[bool]) -> Tensor | None:  # noqa: ARG002  (there is one)
        """Mean over the step's rows, and the penalty."""
        wrong = self.truth.wrongness(self.head(self.read(rows)), self.truth.y[torch.from_numpy(rows)])
        squares = torch.stack([(weights**2).sum() for weights in penalised(self.head)]).sum()
        return wrong.sum() / len(of) + (len(rows) / len(of)) * self.penalty * self.truth.half * squares

    def scores(self) -> list[float]:
        """Minus the mean loss of the rows that are held out; where there are none, the last epoch is the best."""
        self.looked += 1
        if not len(self.held):
            return [float(self.looked)]
        logits = _answered(self.head, self.read, self.held)
        return [-float(self.truth.wrongness(logits, self.truth.y[torch.from_numpy(self.held)]).double().mean())]

    def mode(self, *, training: bool) -> None:
        """Of the head's dropout."""
        self.head.train(training)


def _answered(head: Head, read: Callable[[Rows], Read], rows: Rows) -> Tensor:
    """(n_rows, n_answers) logits of ``rows``."""
    head.eval()
    return torch.cat([head(read(some)) for some in _parts(rows)])


def _parts(rows: Rows) -> Iterator[Rows]:
    """At least one."""
    return (rows[start : start + AT_ONCE] for start in range(0, max(1, len(rows)), AT_ONCE))


def _reader(X: Any, *, of_tokens: bool) -> Callable[[Rows], Read]:
    """What gives the rows of ``X`` as float32 tensors."""
    if isinstance(X, RaggedArray) != of_tokens:
        raise SpecError("X", f"must be {'the tokens of texts (a RaggedArray)' if of_tokens else 'an array (n, d)'}")
    if not of_tokens:
        dense = torch.tensor(np.asarray(X, dtype=np.float32))
        return lambda rows: dense[torch.from_numpy(rows)]

    def read(rows: Rows) -> Ragged:
        part = X[rows]
        return Ragged(torch.from_numpy(part.values.astype(np.float32, copy=False)), torch.from_numpy(part.lengths))

    return read


@contextmanager
def _one_thread() -> Iterator[None]:
    """So that the sums don't depend on how many cores there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
