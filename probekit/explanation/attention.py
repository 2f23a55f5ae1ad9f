"""What a model's heads attend to in one text. What can't be done is said before the pass."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probekit.errors import InputError, ModelError, SpecError
from probekit.explanation.attention_result import AttentionResult
from probekit.extraction.reader import Reader, open_reader
from probekit.extraction.request import asked_layers
from probekit.layers import LayerChoice, choose_layers, layer_range, layers_text
from probekit.models.attention import AttentionForm, attention_form, stream_attention
from probekit.models.decoder_side import DecoderSide
from probekit.models.source import ModelSource
from probekit.models.tokens import Encoded, encode
from probekit.models.vocabulary import check_tokens
from probekit.readspec import ReadSpec, RunOptions
from probekit.spec import Listener

SUM_TOLERANCE = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.05}
"""By compute dtype, how far from 1 rounding can take the sum of a row."""

BLANK, LINE_END = "␣", "↵"
"""What stands for a token that is nothing else."""


@dataclass(frozen=True)
class Asked:
    """Of which ``layers`` and ``heads``, and what is to be made of it; see ``probekit.attention``."""

    layers: LayerChoice
    heads: LayerChoice
    rollout: bool
    hide_first: bool


@dataclass(frozen=True)
class AttentionPlan:
    """All that is known before the pass. ``reads``: the layers whose attention is computed; with rollout all of them.

    ``result``: with everything but the arrays.
    """

    reader: Reader
    form: AttentionForm
    rollout: bool
    result: AttentionResult

    @property
    def n_weights(self) -> int:
        """How many numbers there will be, without rollout."""
        result = self.result
        return len(result.layers) * len(result.heads) * len(result.tokens) ** 2

    @property
    def reads(self) -> tuple[int, ...]:
        """See above."""
        layers = self.result.layers
        return tuple(range(1, max(layers) + 1)) if self.rollout else layers

    def read(self, listener: Listener) -> AttentionResult:
        """Run the model. Raises ModelError where weights are not finite."""
        result, ids = self.result, self.result.token_ids.tolist()
        n, layers, reads = len(ids), result.layers, self.reads
        kept = np.empty((len(layers), len(result.heads), n, n), dtype=np.float32)
        sums, rolled = [1.0], _Rollout(n)
        listener.stage(f"reading {n:,} tokens", total=len(reads), unit="layers")

        def receive(layer: int, weights: Tensor) -> None:
            if not bool(torch.isfinite(weights).all()):
                raise ModelError(f"model {result.model}", "must have finite attention", f"NaN or inf at layer {layer}")
            if layer in layers:
                kept[layers.index(layer)] = weights[list(result.heads)].float().cpu().numpy()
            sums.append(float(weights.float().sum(-1).min()))
            if self.rollout:
                rolled.add(weights)
            listener.advance(reads.index(layer) + 1)

        stream_attention(self.reader.backbone, self.form, ids, layers=reads, receive=receive)
        if min(sums) < 1 - SUM_TOLERANCE[self.reader.backbone.dtype]:
            listener.note(f"rows sum to less than 1 (to {min(sums):.2f} at least): learned sinks take the rest")
        return replace(result, weights=kept, rollout=rolled.so_far if self.rollout else None)


@dataclass
class _Rollout:
    """Attention multiplied through the layers (Abnar and Zuidema, 2020, "Quantifying attention flow in transformers").

    Of each layer: the mean over heads, half of it with half of the identity for the residual stream, rows summing to 1.
    """

    n: int
    product: NDArray[np.float32] | None = field(default=None, init=False)

    def add(self, weights: Tensor) -> None:
        """The next layer: (n_heads, n, n)."""
        mixed = weights.float().mean(0).cpu().numpy() + np.eye(self.n, dtype=np.float32)
        mixed /= mixed.sum(axis=-1, keepdims=True)
        self.product = mixed if self.product is None else mixed @ self.product

    @property
    def so_far(self) -> NDArray[np.float32] | None:
        """(n, n)."""
        return self.product


def plan_attention(
    text: str, asked: Asked, *, spec: ReadSpec, source: ModelSource, options: RunOptions, listener: Listener
) -> AttentionPlan:
    """Load the model, see what attention it has, and whether that of ``text`` can be read and kept.

    Raises ModelError for a model without attention, InputError for a text without a token of its own, SpecError for a
    layer or head that there is not, and for more than there is memory for.
    """
    reader = open_reader(replace(spec, poolings=()), source, options, listener=listener)
    backbone, form_of = reader.backbone, f"model {source.name}"
    encoded = _encoded(reader, text, listener)
    ids = encoded.ids[0].tolist()
    try:
        form = attention_form(backbone, ids)
    except ModelError as error:
        raise ModelError(f"{form_of}, {error.source}", error.allowed, error.got) from error
    chosen = _layers(form, asked.layers)
    n_heads = {form.n_heads[layer - 1] for layer in chosen}
    if len(n_heads) > 1:
        raise SpecError(
            f"--layers {layers_text(asked.layers)}", "layers with as many heads as each other", f"{n_heads}"
        )
    if asked.rollout:
        _check_rollout(form, chosen, decoder=isinstance(backbone.model, DecoderSide))
    if asked.hide_first and len(ids) < 2:
        raise SpecError("--hide-first", "needs a text of two tokens or more", "1")
    result = AttentionResult(
        model=source.name,
        text=text,
        side=spec.side,
        tokens=_labels(reader, encoded, text),
        token_ids=np.array(ids, dtype=np.int64),
        layers=chosen,
        heads=_heads(asked.heads, n_heads.pop()),
        weights=np.empty((0, 0, 0, 0), dtype=np.float32),
        rollout_layer=max(chosen) if asked.rollout else None,
        truncated=bool(encoded.truncated[0]),
        hide_first=asked.hide_first,
    )
    plan = AttentionPlan(reader, form, asked.rollout, result)
    _check_memory(plan)
    return plan


def _encoded(reader: Reader, text: str, listener: Listener) -> Encoded:
    max_length = reader.spec.max_length or 0
    encoded = encode(reader.tokenizer, [text], max_length=max_length, ids=["--text"], template=reader.template)
    vocabulary = reader.backbone.vocabulary
    for note in check_tokens(encoded, reader.tokenizer, size=vocabulary, texts=[text], names=["--text"]):
        listener.note(note)
    (first, stop), special = encoded.text_range[0].tolist(), encoded.special[0]
    unknown = encoded.ids[0] == reader.tokenizer.unk_token_id
    if not (unknown | ~special)[first:stop].any():
        raise InputError("--text", "must have a token of its own", f"special tokens alone ({text[:40]!r})")
    if encoded.truncated[0]:
        listener.note(f"the text is longer than {max_length} tokens and read only so far")
    return encoded


def _labels(reader: Reader, encoded: Encoded, text: str) -> tuple[str, ...]:
    """What people call the tokens: their part of the text, or the name of a special one.

    A decoder reads the text one token late, behind its start token.
    """
    names = reader.tokenizer.convert_ids_to_tokens(encoded.ids[0].tolist())
    labels = []
    for name, special, (first, stop) in zip(names, encoded.special[0], encoded.offsets[0].tolist(), strict=True):
        piece = "" if special else text[first:stop]
        blank = LINE_END if "\n" in piece else BLANK
        labels.append(piece.strip() or (piece and blank) or str(name))
    if isinstance(reader.backbone.model, DecoderSide):
        start = reader.tokenizer.convert_ids_to_tokens(reader.backbone.model.start)
        labels = [str(start), *labels[:-1]]
    return tuple(labels)


def _layers(form: AttentionForm, choice: LayerChoice) -> tuple[int, ...]:
    there = tuple(layer for layer, n in enumerate(form.n_heads, start=1) if n)
    if choice == "all":
        return there
    chosen = asked_layers(ReadSpec(site="attn"), choice, len(form.n_heads))
    lacking = [layer for layer in chosen if layer not in there]
    if lacking:
        message = f"this model has attention in layers {layer_range(there)}"
        raise SpecError(f"--layers {layers_text(choice)}", message, f"layer {lacking[0]}")
    return chosen


def _heads(choice: LayerChoice, n_heads: int) -> tuple[int, ...]:
    try:
        return choose_layers(choice, n_heads - 1)
    except SpecError as error:
        message = f"this model has heads 0..{n_heads - 1}"
        raise SpecError(f"--heads {layers_text(choice)}", message, error.got.replace("layer", "head")) from error


def _check_rollout(form: AttentionForm, layers: Sequence[int], *, decoder: bool) -> None:
    """Raise SpecError where attention can't be multiplied through the layers."""
    lacking = [layer for layer in range(1, max(layers) + 1) if not form.n_heads[layer - 1]]
    if lacking:
        message = f"needs attention in every layer up to {max(layers)}"
        raise SpecError("--rollout", message, f"none in {layer_range(lacking)}")
    if decoder:
        raise SpecError("--rollout", "goes with --side encoder: a decoder attends to the encoder's states as well")


def _check_memory(plan: AttentionPlan) -> None:
    """Raise SpecError where more memory is needed than is free."""
    backbone, result = plan.reader.backbone, plan.result
    n = len(result.tokens)
    kept = 4 * plan.n_weights + (4 * 4 * n**2 if plan.rollout else 0)
    at_once = plan.form.bytes_at_once(n, itemsize=backbone.model.dtype.itemsize)
    needs = [(kept, free_memory())]
    if backbone.device.type == "cuda":
        needs.append((at_once, torch.cuda.mem_get_info(backbone.device)[0]))
    else:
        needs = [(kept + at_once, free_memory())]
    for needed, free in needs:
        if needed > free:
            maps = f"{len(result.layers)} layers x {len(result.heads)} heads"
            message = f"the attention of {maps} to {n:,} tokens needs {_gigabytes(needed)} of memory"
            hint = "ask for fewer with --layers, --heads or --max-length"
            raise SpecError("--text", f"{message}; {hint}", f"{_gigabytes(free)} free")


def _gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:,.2f} GB"


def free_memory() -> int:
    """Bytes that can be had without swapping, of this machine and of its container."""
    free = _fields(Path("/proc/meminfo")).get("MemAvailable:")
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if free is None else 1024 * free
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return available  # not in a container, or an older one
    if not limit.isdigit():
        return available
    cached = _fields(group / "memory.stat").get("inactive_file", 0)  # given back when it is needed
    return max(0, min(available, int(limit) - int(used) + cached))


def _fields(file: Path) -> dict[str, int]:
    """Numbers of a file of the kernel's, by name."""
    try:
        lines: list[Any] = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}
