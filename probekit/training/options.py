"""What a person asks of training, checked as far as it can be without a cache."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from probekit.errors import SpecError
from probekit.evaluate.plan import task_of
from probekit.spec import HEAD_KINDS, POOLING_NAMES, Json

SAMPLINGS = ("proportional", "uniform", "temperature")
INITS = ("probe", "random")
SOLVERS = ("adam", "lbfgs")
SUBWORDS = ("mean", "first", "last")
_FROM_NOTHING = {"linear": 3e-3, "mlp": 1e-3, "attention": 1e-2, "mix": 3e-3}
"""Learning rates of heads on frozen states that begin at random."""
_TOP = re.compile(r"top:([0-9]{1,4})")


@dataclass(frozen=True)
class HeadOptions:
    """A head for one target. ``layer``, ``pooling``: None for what the probes choose on validation.

    ``task``: as in ``probekit probe``. ``width``, ``dropout``: of the hidden layer of an mlp; dropout also of what
    attention and mix read. ``weight``: of its loss, where several targets train one backbone.
    """

    target: str
    head: str = "linear"
    layer: int | None = None
    pooling: str | None = None
    width: int = 128
    dropout: float = 0.1
    weight: float = 1.0
    task: str = "auto"

    def __post_init__(self) -> None:
        where = f"target {self.target}, " if self.target else ""
        _one_of(f"{where}--head", self.head, HEAD_KINDS)
        if self.pooling is not None:
            _one_of(f"{where}--pooling", self.pooling, POOLING_NAMES)
        _at_least(f"{where}--width", self.width, 1)
        _within(f"{where}--dropout", self.dropout, "at least 0 and below 1", lambda p: 0 <= p < 1)
        _within(f"{where}--weight", self.weight, "a number above 0", lambda w: 0 < w < float("inf"))
        if self.head != "mlp" and self.width != HeadOptions.width:
            raise SpecError(f"{where}--width {self.width}", "is of an mlp's hidden layer; leave it out", self.head)
        if self.head == "linear" and self.dropout != HeadOptions.dropout:
            raise SpecError(f"{where}--dropout {self.dropout}", "a linear head has none; leave it out", self.head)
        if self.head == "attention" and self.pooling is not None:
            raise SpecError(f"{where}--pooling {self.pooling}", "attention pools by itself; leave it out")
        if self.head == "mix" and self.layer is not None:
            raise SpecError(f"{where}--layer {self.layer}", "a mix reads all layers of the cache; leave it out")


@dataclass(frozen=True)
class TrainOptions:
    """How heads are trained. What is None is chosen by the backbone: see ``epochs_of`` and the like.

    ``backbone``: "frozen", "top:M", "lora" or "full". ``init``: where a linear head begins, the fitted probe or
    nothing. ``solver``: "lbfgs" trains a head on frozen states to convergence. ``penalty``: on the squares of a head's
    weights, per row; None for what the probe chose. ``batch_size``: texts of a step, read in ``accumulate`` parts.
    ``sampling``: of targets with different numbers of labelled rows: as they come, equally often, or by n to the power
    of 1 / ``temperature``. ``patience``: epochs without gain on validation after which a target stops.
    """

    heads: tuple[HeadOptions, ...]
    backbone: str = "frozen"
    init: str = "probe"
    solver: str = "adam"
    epochs: int | None = None
    batch_size: int | None = None
    accumulate: int = 1
    lr: float | None = None
    head_lr: float | None = None
    weight_decay: float = 0.01
    penalty: float | None = None
    patience: int = 5
    sampling: str = "proportional"
    temperature: float = 2.0
    seeds: int = 1
    lora_rank: int = 8
    lora_alpha: float | None = None
    lora_dropout: float = 0.0
    lora_targets: tuple[str, ...] = ("all-linear",)
    soft_prompt: int = 0
    checkpointing: bool = False
    bf16: bool = False
    split: str | float | None = None
    group: str | None = None
    drop_rare: int = 0
    subword: str = "mean"
    viterbi: bool = False
    verify: bool = True

    def __post_init__(self) -> None:
        if not self.heads:
            raise SpecError("--target", "at least one column")
        names = [head.target for head in self.heads]
        if len(set(names)) < len(names) or not all(names):
            raise SpecError("--target", "names of columns, none twice", ",".join(names))
        _one_of("--init", self.init, INITS)
        _one_of("--solver", self.solver, SOLVERS)
        _one_of("--sampling", self.sampling, SAMPLINGS)
        _one_of("--subword", self.subword, SUBWORDS)
        for name in ("accumulate", "patience", "seeds", "lora_rank", "epochs", "batch_size"):
            if getattr(self, name) is not None:
                _at_least(f"--{name.replace('_', '-')}", getattr(self, name), 1)
        _at_least("--soft-prompt", self.soft_prompt, 0)
        for name in ("lr", "head_lr", "lora_alpha", "temperature"):
            value = getattr(self, name)
            if value is not None:
                option = f"--{name.replace('_', '-')}"
                _within(option, value, "a number above 0", lambda x: 0 < x < float("inf"))
        _within("--lora-dropout", self.lora_dropout, "at least 0 and below 1", lambda p: 0 <= p < 1)
        for name in ("weight_decay", "penalty"):
            value = getattr(self, name)
            if value is not None:
                option = f"--{name.replace('_', '-')}"
                _within(option, value, "a number of at least 0", lambda x: 0 <= x < float("inf"))
        if not is_backbone(self.backbone):
            raise SpecError(f"--backbone {self.backbone}", "frozen, top:M (a number), lora or full")
        self._check_fit()

    def _check_fit(self) -> None:
        """Raise SpecError for options that would do nothing together."""
        live = {
            "--checkpointing": self.checkpointing,
            "--bf16": self.bf16,
            "--lr": self.lr is not None,
            "--lora-targets": self.lora_targets != ("all-linear",) and self.backbone != "lora",
        }
        if not self.tuned:
            for option in (option for option, asked in live.items() if asked):
                raise SpecError(option, "is for a backbone that is trained: --backbone lora, full or top:M")
        if self.solver == "lbfgs" and self.tuned:
            raise SpecError("--solver lbfgs", "is for heads on frozen states", f"--backbone {self.backbone}")
        if self.soft_prompt and self.top is not None:
            raise SpecError(f"--soft-prompt {self.soft_prompt}", "changes the states of every block; not with top:M")

    @property
    def top(self) -> int | None:
        """M of ``top:M``, else None."""
        found = _TOP.fullmatch(self.backbone)
        return int(found[1]) if found else None

    @property
    def tuned(self) -> bool:
        """Whether anything but heads is trained, so that texts go through the model at every step."""
        return self.backbone != "frozen" or self.soft_prompt > 0

    @property
    def suffix(self) -> str:
        """What stands after the head's name in tables."""
        parts = [] if self.backbone == "frozen" else [self.backbone]
        return "".join(f"+{part}" for part in [*parts, *([f"prompt:{self.soft_prompt}"] if self.soft_prompt else [])])

    @property
    def n_epochs(self) -> int:
        """Passes over the training rows, at most."""
        return self.epochs or (4 if self.tuned else 30)

    @property
    def rows_of_step(self) -> int:
        """Texts (or words) of a step."""
        return self.batch_size or (16 if self.tuned else 64)

    def head_rate(self, head: HeadOptions) -> float:
        """Learning rate of a head; small where it begins as good as it can be on frozen states."""
        frozen = 1e-3 if self.at_probe(head) else _FROM_NOTHING[head.head]
        return self.head_lr or (2e-4 if self.tuned else frozen)

    def at_probe(self, head: HeadOptions) -> bool:
        """Whether a head begins at the fitted probe."""
        return head.head == "linear" and self.init == "probe"

    @property
    def rate(self) -> float:
        """Learning rate of what else is trained."""
        usual = {"lora": 5e-4, "frozen": 5e-3}  # frozen: a soft prompt alone
        return self.lr or usual.get(self.backbone, 3e-5)

    def json(self) -> Json:
        """For the card and the record."""
        plain = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "verify"}
        heads = [{field.name: getattr(head, field.name) for field in fields(head)} for head in self.heads]
        return {**plain, "heads": heads, "lora_targets": list(self.lora_targets)}


def is_backbone(value: Any) -> bool:
    """Whether it says what of a backbone is trained."""
    return isinstance(value, str) and (value in ("frozen", "lora", "full") or _TOP.fullmatch(value) is not None)


def head_options(
    targets: Sequence[str],
    *,
    tasks: str | Mapping[str, str] = "auto",
    weights: str | Mapping[str, float] | None = None,
    **shared: Any,
) -> tuple[HeadOptions, ...]:
    """A head for each of ``targets``, alike but for the task and the weight. ``weights``: ``{"V": 0.5}``, or "V=0.5".

    Raises SpecError for a task or a weight of something else.
    """
    task = task_of(tasks, targets)
    given = _weights(weights) if isinstance(weights, str) else dict(weights or {})
    for name in given:
        if name not in targets:
            raise SpecError("--weight", f"of targets: {', '.join(targets)}", str(name))
    return tuple(HeadOptions(name, task=task[name], weight=given.get(name, 1.0), **shared) for name in targets)


def _weights(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.rpartition("=")
        try:
            found[name.strip()] = float(number)
        except ValueError as error:
            raise SpecError(f"--weight {text}", "COLUMN=NUMBER, with commas") from error
    return found


def _one_of(option: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise SpecError(f"{option} {value}", f"one of {', '.join(allowed)}")


def _at_least(option: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SpecError(f"{option} {value}", f"a whole number of at least {least}")


def _within(option: str, value: Any, allowed: str, fits: Callable[[float], bool]) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not fits(value):
        raise SpecError(f"{option} {value}", allowed)
