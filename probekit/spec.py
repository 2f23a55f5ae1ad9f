"""What the stages hand to each other: frozen dataclasses and the sink protocol, no behaviour.

The data flow is inputs -> extraction -> store -> evaluate -> report; every arrow is a type in this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Json = dict[str, Any]
"""A JSON object."""


@dataclass(frozen=True)
class Examples:
    """Labelled texts in the order of the input (what ``inputs`` returns).

    ``texts``: n strings, none empty. ``ids``: (n,) object array of unique strings. ``columns``: every other column by
    name, each (n,) of dtype int64, float64 (NaN: missing), bool or object (str; an empty string: missing; a list is
    JSON text). ``source``: the data as the user named it. ``text_column``: where the texts were. ``words``: for data
    that come as words (CoNLL files, a list column as text): the words of each example, whose texts are these words with
    single spaces between. ``notes``: what the user should know of how the data were read, one sentence each.
    """

    source: str
    text_column: str
    texts: list[str]
    ids: NDArray[np.object_]
    columns: Mapping[str, NDArray[Any]]
    words: list[list[str]] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class TokenLayout:
    """The ragged token axis: (total_tokens,) arrays, example i owning the slice given by the cumulated ``n_tokens``."""

    ids: NDArray[np.int32]
    special: NDArray[np.bool_]
    word: NDArray[np.int32]
    dtype: str


@dataclass(frozen=True)
class CacheLayout:
    """Everything that fixes the size of a cache file; all known after tokenisation.

    ``layers``: stored layer indices, ascending. ``final_norm``: those of them to which the model's final norm was
    applied. ``n_tokens``: (n,) tokens read per example, special tokens included, after truncation.
    ``truncated``: (n,) whether tokens were cut off. ``windows``: (start, stop) rows, covering 0..n in order.
    ``pooled_dtype``: "float32", "float16" or "bfloat16" (stored as uint16). ``tokens``: None for pooled only.
    """

    layers: tuple[int, ...]
    final_norm: tuple[int, ...]
    poolings: tuple[str, ...]
    d_model: int
    n_tokens: NDArray[np.int32]
    truncated: NDArray[np.bool_]
    windows: tuple[tuple[int, int], ...]
    pooled_dtype: str = "float32"
    tokens: TokenLayout | None = None


@dataclass(frozen=True)
class WindowStates:
    """The states of one window of rows, in input order.

    ``pooled[pooling, layer]``: (stop - start, d_model) float32. ``tokens[layer]``: (tokens of the window, d_model)
    float32, ragged. ``split_batches``: how many planned batches had to be split for memory.
    """

    index: int
    pooled: Mapping[tuple[str, int], NDArray[np.float32]]
    tokens: Mapping[int, NDArray[np.float32]] = field(default_factory=dict)
    split_batches: int = 0


class FeatureSink(Protocol):
    """Where extraction writes to: a cache file, or a plain object in a test."""

    def pending(self) -> Sequence[int]:
        """Indices of the windows that are not yet written, ascending."""

    def write_window(self, states: WindowStates) -> None:
        """Write one window durably, then mark it done. Safe to repeat."""


class Listener(Protocol):
    """Told how a long step goes: a progress bar, or nothing at all."""

    def stage(self, name: str, *, total: int, unit: str) -> None:
        """A step of ``total`` units begins; the one before it is over."""

    def advance(self, done: int) -> None:
        """``done`` units of the step are done, counted from its beginning (or from a resumed run's)."""

    def note(self, text: str) -> None:
        """Something that was chosen or found out, for the reader."""


class Silent:
    """A listener that says nothing."""

    def stage(self, name: str, *, total: int, unit: str) -> None:
        """Nothing."""

    def advance(self, done: int) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


POOLING_NAMES = ("mean", "last", "first", "max", "mean_skip_first")
"""The keys of ``pooling.POOLINGS``, known here without loading torch (a test holds the two together)."""

HEAD_KINDS = ("linear", "mlp", "attention", "mix")
"""The keys of ``heads.modules.HEADS``, known here without loading torch (a test holds the two together)."""

ATTENTION = "attention"
"""What the tables and a probe's card have for pooling where the probe reads all tokens and weighs them itself."""

POOL_OVER = ("all", "text", "span")
"""Which tokens are pooled: all, those of the text without prompt and special tokens, or those of a span of it."""

SIDES = ("encoder", "decoder")
"""Of an encoder-decoder model."""

SITES = ("block", "attention", "mlp")
"""Where a state is seen: the residual stream, or what a part of each block adds to it."""

LAST_LAYERS = ("normed", "raw", "both")
"""The deepest layer: after the model's final norm, before it, or both as two layers."""

PLACE = "{text}"
"""Where a prompt has the text."""

TABLE_COLUMNS: tuple[str, ...] = (
    *("model", "revision", "dataset", "target", "task", "pooling", "layer", "n_layers", "final_norm", "probe"),
    *("metric", "score", "ci_low", "ci_high", "val_score", "selected", "train_score", "delta_layer0"),
    *("baseline", "text_baseline", "control", "selectivity"),
    *("accuracy", "balanced_accuracy", "macro_f1", "mcc", "log_loss", "auroc"),
    *("r2", "rmse", "mae", "pearson", "spearman"),
    *("regularisation", "grid_edge", "converged", "n_train", "n_val", "n_test", "n_classes", "group"),
    *("n_groups_test", "n_duplicate", "n_truncated", "seeds", "max_abs"),
    *("length_baseline", "conditional", "mdl_bits", "compression", "random_model", "p_vs_best"),
    *("n_groups_crossing", "micro_f1"),
    *("entity_f1", "entity_precision", "entity_recall", "entity_f1_lenient", "viterbi_gain"),
    *("commonest_accuracy", "oov_accuracy", "n_words", "n_words_lost"),
    "cache",
)
"""The columns of the layer table in their order; one that does not apply to a row is empty."""


HEAD_COLUMNS: tuple[str, ...] = (
    *TABLE_COLUMNS,
    *("backbone", "init", "epoch", "n_trained", "centre_of_gravity", "seconds_per_step"),
)
"""The columns of the table of trained heads: those of the layer table, what was trained, from where, and for how long.

``epoch``: whose weights were kept, 0 for those before any step. ``n_trained``: parameters. ``centre_of_gravity``: the
mean layer of a mix by its weights (Tenney et al. 2019).
"""

CLASS_COLUMNS: tuple[str, ...] = (
    *("model", "dataset", "target", "pooling", "layer", "probe"),
    *("class", "precision", "recall", "f1", "support"),
    "cache",
)
"""The columns of the per-class table."""


SHOT_COLUMNS: tuple[str, ...] = (
    *("model", "dataset", "target", "pooling", "layer", "protocol", "probe", "metric"),
    *("shots", "draws", "mean", "sd", "low", "high"),
    "cache",
)
"""The columns of the few-shot table."""


HEALTH_COLUMNS: tuple[str, ...] = (
    *("pooling", "layer", "max_abs", "n_nonfinite"),
    *("top_dimension", "effective_rank", "cosine", "cka_previous"),
)
"""The columns of the table of the features' health."""


TRANSFER_COLUMNS: tuple[str, ...] = (
    *("model", "target", "pooling", "layer", "probe", "metric", "trained_on", "tested_on"),
    *("score", "ci_low", "ci_high", "selected", "n_train", "n_test"),
    "n_duplicate",
)
"""The columns of the transfer table; ``trained_on`` and ``tested_on`` are names of caches."""


@dataclass(frozen=True)
class ChosenProbe:
    """The fitted probe of the layer that was best on validation, of the first seed, to be kept and used.

    ``estimator``: scikit-learn's; ``fitted_on``: "train", or "train + validation" with the hyper-parameters that were
    chosen before; ``n_fitted``: so many rows (sentences, for tags). ``row``: the layer's row of the table, whose scores
    are those of the fit on training rows alone. ``test``: (n_test,) positions of the test rows in the cache;
    ``predicted``: (n_test,) the answers of ``estimator`` there. ``classes``: all labels, if any.
    """

    target: str
    task: str
    pooling: str
    layer: int
    probe: str
    estimator: Any
    row: Json
    test: NDArray[np.int64]
    predicted: NDArray[Any]
    classes: tuple[Any, ...]
    fitted_on: str = "train"
    n_fitted: int = 0


@dataclass(frozen=True)
class Evaluation:
    """The layer table and what belongs to it (what ``evaluate`` returns and ``report`` draws).

    ``table``: one row per target x pooling x layer x probe, columns ``TABLE_COLUMNS``. ``warnings``: what a careful
    reader must know, one sentence each. ``details``: JSON with how the rows were divided and the scores by seed.
    ``chosen``: one probe per target x pooling x kind of probe. ``classes``: the selected layers by class, one row per
    curve x class, columns ``CLASS_COLUMNS``; no rows for numbers.
    """

    table: pd.DataFrame
    warnings: tuple[str, ...]
    details: Json
    chosen: tuple[ChosenProbe, ...]
    classes: pd.DataFrame


@dataclass(frozen=True)
class Result:
    """What a command of the CPU stage found. ``tables``: by name, those that were asked for, the main one first.

    "layers" and "classes" (columns ``TABLE_COLUMNS``, ``CLASS_COLUMNS``), "shots" (``SHOT_COLUMNS``), "transfer"
    (``TRANSFER_COLUMNS``), "diagnostics" (``HEALTH_COLUMNS``). ``warnings``: what a careful reader must know, one
    sentence each. ``record``: JSON with the provenance and how the rows were divided. ``chosen``: the probes of the
    selected layers, each with the spec of its cache.
    """

    tables: Mapping[str, pd.DataFrame]
    warnings: tuple[str, ...] = ()
    record: Json = field(default_factory=dict)
    chosen: tuple[tuple[ChosenProbe, Json], ...] = ()

    @property
    def table(self) -> pd.DataFrame:
        """The main table."""
        return next(iter(self.tables.values()))
