"""The frozen model, loaded once: texts in as token ids, ragged per-layer states out."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from probekit.errors import ModelError
from probekit.models import packing
from probekit.models.blocks import Receive, Stack, accepted, find_stack, only_states, stream_states, with_last_layer
from probekit.models.decoder_side import DecoderSide, one_side
from probekit.models.foreign import first_line
from probekit.models.sites import at_site

LENGTHS = (3, 5, 5, 17)
"""Of the texts by which it is found out how a model can be read: two alike, and a short one beside a long one."""

ALONE = "one by one: a text's states depend on what else is in its batch"

ROUNDING = {"float32": 1e-4, "float16": 0.01, "bfloat16": 0.05}
"""By compute dtype, what is still rounding, relative to the states."""

EXACT = "float32"


@dataclass(frozen=True)
class Backbone:
    """A model ready to be read.

    ``position_start``: the id of the first position in a packed row (RoBERTa counts from pad + 1); None where the model
    can't be read packed, and ``batching`` says why. ``longest_packed``: tokens of the longest text that no sliding
    window cuts; a longer one is padded. ``length_limit``: up to this length texts are read one way and above it
    another, so that no batch may hold both. ``causal``: a token sees only those before it. ``vocabulary``: how many
    tokens the model has embeddings for, as far as that can be seen. ``single``: the model gives a text other states in
    a batch than alone, so texts are read one by one.
    """

    model: PreTrainedModel | DecoderSide
    stack: Stack
    device: torch.device
    dtype: str
    dtype_reason: str
    causal: bool
    position_start: int | None
    batching: str
    pad_id: int
    max_positions: int | None
    longest_packed: int = packing.NO_LIMIT
    length_limit: int | None = None
    vocabulary: int | None = None
    single: bool = False

    @property
    def padded(self) -> bool:
        """Whether batches hold padding."""
        return self.position_start is None

    @property
    def way(self) -> str:
        """How texts are read together: "packed", "padded", or "single" for not at all."""
        return "single" if self.single else "padded" if self.padded else "packed"

    @property
    def n_parameters(self) -> int:
        """How many weights a token passes on its way through the blocks; 0 where no blocks were found."""
        seen = {id(p): p.numel() for block in self.stack.blocks for p in block.parameters()}
        return sum(seen.values())

    def stream(self, sequences: Sequence[list[int]], *, layers: tuple[int, ...], receive: Receive) -> None:
        """Read token ids as one batch; ``receive(layer, states)`` gets float32 (total_tokens, d_model), ragged.

        The order of tokens is that of ``sequences``. Packed where the model allows it, else padded on the right, or one
        by one; so are the pieces of a text that lie on both sides of ``length_limit``.
        """
        limit = self.length_limit
        mixed = limit is not None and len({len(sequence) > limit for sequence in sequences}) > 1
        if self.single or mixed:
            self._stream_alone(sequences, layers=layers, receive=receive)
            return
        if self.position_start is not None and max(map(len, sequences)) <= self.longest_packed:
            inputs, real = _packed_inputs(sequences, self.position_start, self.pad_id, self.device), None
        else:
            inputs = padded_inputs(sequences, self.pad_id, self.device)
            real = inputs["attention_mask"].bool()

        def ragged(layer: int, states: Tensor) -> None:
            states = states.to(self.device)
            receive(layer, (states[0] if real is None else states[real]).float())

        with nullcontext() if real is None else self._own_attention(), torch.inference_mode():
            stream_states(self.model, self.stack, inputs, layers=layers, receive=ragged)

    def _stream_alone(self, sequences: Sequence[list[int]], *, layers: tuple[int, ...], receive: Receive) -> None:
        """The same without any batch: all layers of all ``sequences`` are kept until the last one is read."""
        alone = replace(self, position_start=None, single=False)  # (and of one sequence there is no mixture)
        found: dict[int, list[Tensor]] = {layer: [] for layer in sorted(layers)}
        with self._own_attention():
            for sequence in sequences:
                alone.stream([sequence], layers=layers, receive=lambda k, states: found[k].append(states.clone()))
        for layer, states in found.items():
            receive(layer, torch.cat(states))

    @contextmanager
    def _own_attention(self) -> Iterator[None]:
        """A model that is read packed with transformers' attention for a while, which padding needs."""
        if self.position_start is None:
            yield
            return
        packing.switch_attention(self.model, "sdpa")
        try:
            yield
        finally:
            packing.switch_attention(self.model, packing.NAME)

    def checked_on(self, texts: Sequence[NDArray[np.int32]], *, layer: int, batch_tokens: int) -> Backbone:
        """This backbone, or its form that reads one by one, if a short and a long one of ``texts`` differ in a batch.

        ``texts``: token ids. A batch as full as ``batch_tokens`` allows is read, and its first and last text, which are
        as different in length as two in one batch can be, alone; ``layer`` is compared.
        """
        together = _full_batch(self, texts, batch_tokens)
        if self.single or not together:
            return self
        ends = [together[0], together[-1]]
        batched: list[Tensor] = []
        alone: list[Tensor] = []
        try:
            self.stream(together, layers=(layer,), receive=lambda _layer, states: batched.append(states))
        except (MemoryError, ValueError, IndexError, RuntimeError) as error:
            if isinstance(error, MemoryError | torch.OutOfMemoryError) or "memory" in str(error):
                return self  # the run itself halves its batches
            return replace(self, single=True, batching=f"one by one: a batch fails ({first_line(error)})")
        self._stream_alone(ends, layers=(layer,), receive=lambda _layer, states: alone.append(states))
        first, *_, last = torch.split(batched[0], [len(text) for text in together])
        if _same(self.model, [first, last], torch.split(alone[0], [len(text) for text in ends])):
            return self
        return replace(self, single=True, batching=ALONE)


def _settings(model: torch.nn.Module) -> dict[str, str]:
    """Whatever is text among the attributes of a model's modules: how they are set up."""
    return {
        f"{name}.{attribute}".lstrip("."): value
        for name, module in model.named_modules()
        for attribute, value in vars(module).items()
        if isinstance(value, str)
    }


def _full_batch(backbone: Backbone, texts: Sequence[NDArray[np.int32]], batch_tokens: int) -> list[list[int]]:
    """Texts that may share a batch, shortest first, as different in length as can be; none if no two may."""
    ordered = sorted((text for text in texts if len(text) <= (backbone.length_limit or len(text))), key=len)
    for k in range(len(ordered) - 1, 0, -1):
        shortest, longest = len(ordered[0]), len(ordered[k])
        room = batch_tokens - (2 * longest if backbone.padded else shortest + longest)
        if room < 0:
            continue
        between = ordered[1:k]
        each = longest if backbone.padded else max(1, round(np.mean([len(text) for text in between or [ordered[0]]])))
        step = max(1, len(between) // max(1, room // each))
        chosen = between[::step][: room // each]
        return [text.tolist() for text in (ordered[0], *chosen, ordered[k])]
    return []


def prepare(
    model: PreTrainedModel,
    *,
    device: torch.device,
    dtype: str,
    dtype_reason: str,
    side: str = "encoder",
    site: str = "block",
    last_layer: str = "normed",
    one_by_one: bool = False,
) -> Backbone:
    """Find out by short runs how a model has to be read: its stack, causality, and whether packing agrees with padding.

    ``side``, ``site``, ``last_layer``: see ``one_side``, ``at_site`` and ``with_last_layer``. ``one_by_one``: read no
    two texts together, as a cache was read.
    """
    # Spread over several devices, or quantised, it is where it belongs already.
    spread = hasattr(model, "hf_device_map") or getattr(model, "quantization_method", None) is not None
    whole = (model if spread else model.to(device)).eval().requires_grad_(False)
    model = one_side(whole, side)
    config = model.config.get_text_config()
    only_states(whole)
    table = table_rows(model)
    vocabulary = max(2, int(getattr(config, "vocab_size", None) or table or 2))
    pad_id = getattr(config, "pad_token_id", None)
    if pad_id is None or not 0 <= pad_id < (table or vocabulary):  # some say -1 for none
        pad_id = 0
    positions = getattr(config, "max_position_embeddings", None)
    max_positions = int(positions) - _position_offset(whole, int(positions)) if positions and positions > 0 else None
    longest = min(limit for limit in (max(LENGTHS), max_positions, length_limit(config)) if limit)
    rows = [
        [(7 * i + 11 * j + 5) % vocabulary for j in range(min(length, longest))] for i, length in enumerate(LENGTHS)
    ]
    rows = [[token + 1 if token == pad_id and token + 1 < vocabulary else token for token in row] for row in rows]
    one = padded_inputs(rows[:1], pad_id, device)
    settings = _settings(whole)
    stack = find_stack(model, one)
    causal = side == "decoder" or _is_causal(model, one)
    seen_at = with_last_layer(at_site(model, stack, one, site), last_layer)
    packing.PACKED.window = int(getattr(config, "attention_chunk_size", None) or packing.NO_LIMIT)
    alone = [_read(model, stack, padded_inputs([row], pad_id, device))[0] for row in rows]
    position_start, why = _try_packing(model, stack, rows, alone, pad_id)
    harmless = position_start is not None or _padding_is_harmless(model, stack, rows, alone, pad_id)
    single = one_by_one or not harmless
    for name, value in _settings(whole).items():
        if settings.get(name, value) != value:
            message = f"changes its own settings as it reads ({name}: {settings[name]} became {value})"
            raise ModelError("the model", f"{message}, so that a text's states depend on those read before it")
    if single:
        why = ALONE
    if not stack.blocks:
        why = f"{why}; no stack of blocks found, so all layers are kept until the pass ends"
    return Backbone(
        model=model,
        stack=seen_at,
        device=device,
        dtype=dtype,
        dtype_reason=dtype_reason,
        causal=causal,
        position_start=position_start,
        batching=why,
        pad_id=pad_id,
        vocabulary=table,
        max_positions=max_positions,
        single=single,
        longest_packed=packing.PACKED.window,
        length_limit=length_limit(config),
    )


def length_limit(config: Any) -> int | None:
    """The length up to which a rope that depends on the length is read one way, and above it another (longrope)."""
    parameters = getattr(config, "rope_parameters", None) or {}
    field = "original_max_position_embeddings"
    limit = parameters.get(field) or getattr(config, field, None)
    return int(limit) if limit and parameters.get("rope_type") == "longrope" else None


def table_rows(model: PreTrainedModel | DecoderSide) -> int | None:
    """Rows of the table in which tokens are looked up (of the smaller one, if there are two)."""
    try:
        sides = (model.model.get_encoder(), model.model.get_decoder()) if isinstance(model, DecoderSide) else (model,)
        weights = [getattr(side.get_input_embeddings(), "weight", None) for side in sides]
    except NotImplementedError:  # transformers' way to say that it does not know
        return None
    return min((len(weight) for weight in weights if isinstance(weight, Tensor)), default=None)


def _position_offset(model: torch.nn.Module, positions: int) -> int:
    """RoBERTa-like tables of positions keep the first pad + 1 of them for padding."""
    tables = [m for m in model.modules() if isinstance(m, torch.nn.Embedding) and m.num_embeddings == positions]
    # A padding of -1, for none, has become that of the last row.
    return max(((table.padding_idx + 1) % positions for table in tables if table.padding_idx is not None), default=0)


def _packed_inputs(
    rows: Sequence[list[int]], position_start: int, pad_id: int, device: torch.device
) -> dict[str, Tensor]:
    packing.PACKED.lengths = [len(row) for row in rows]
    sequences = [np.asarray(row, dtype=np.int64) for row in rows]
    if position_start:  # RoBERTa counts from pad + 1, and passes over a padding token even inside a text
        real = [sequence != pad_id for sequence in sequences]
        positions = [np.cumsum(mask) * mask + pad_id for mask in real]
    else:
        positions = [np.arange(len(sequence)) for sequence in sequences]
    return {
        "input_ids": torch.from_numpy(np.concatenate(sequences)).unsqueeze(0).to(device),
        "position_ids": torch.from_numpy(np.concatenate(positions)).unsqueeze(0).to(device),
    }


def padded_inputs(
    rows: Sequence[list[int] | NDArray[np.int32]], pad_id: int, device: torch.device
) -> dict[str, Tensor]:
    """Pad on the right: absolute and rotary positions then need no correction, whatever side the tokenizer prefers."""
    tensors = [torch.as_tensor(row, dtype=torch.long) for row in rows]
    ids = pad_sequence(tensors, batch_first=True, padding_value=pad_id)
    mask = pad_sequence([torch.ones_like(tensor) for tensor in tensors], batch_first=True)
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def _read(model: PreTrainedModel, stack: Stack, inputs: dict[str, Tensor]) -> Tensor:
    states: list[Tensor] = []
    layers = (stack.n_layers,)
    with torch.inference_mode():
        stream_states(model, stack, inputs, layers=layers, receive=lambda _layer, hidden: states.append(hidden.float()))
    return states[0]


def _is_causal(model: PreTrainedModel, inputs: dict[str, Tensor]) -> bool:
    """Whether the first token's state has nothing of the last token in it: its gradient there is zero.

    States with another last token would do as well, but in a mixture of experts they differ by rounding.
    """
    embedded: list[Tensor] = []

    def watch(_module: torch.nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if not args or not isinstance(args[0], Tensor) or not torch.equal(args[0], inputs["input_ids"]):
            return None  # a table of positions or the like
        embedded.append(output.detach().requires_grad_(True))
        return embedded[-1]

    hooks = [m.register_forward_hook(watch) for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    try:
        with torch.enable_grad():
            first = model(**accepted(model, inputs), output_hidden_states=True).hidden_states[-1][0, 0].float()
            # A plain sum would be constant behind a norm.
            weighted = (first * torch.linspace(0.5, 1.5, len(first), device=first.device)).sum()
            gradients = torch.autograd.grad(weighted, embedded, allow_unused=True) if embedded else ()
    except RuntimeError:  # it writes over what the gradient needs, or has none
        return _first_token_stays(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return bool(embedded) and not any(bool(g[0, -1].any()) for g in gradients if g is not None)


def _first_token_stays(model: PreTrainedModel, inputs: dict[str, Tensor]) -> bool:
    """The same by another last token."""
    changed = inputs["input_ids"].clone()
    changed[0, -1] = changed[0, 0]
    with torch.inference_mode():
        a, b = (
            model(**accepted(model, inputs | {"input_ids": ids}), output_hidden_states=True).hidden_states[-1][0, 0]
            for ids in (inputs["input_ids"], changed)
        )
    return bool((a.float() - b.float()).norm() <= ROUNDING[EXACT] * a.float().norm())


def _try_packing(
    model: PreTrainedModel, stack: Stack, rows: list[list[int]], alone: list[Tensor], pad_id: int
) -> tuple[int | None, str]:
    """Packed is used only where it gives every text the states that it has ``alone``; the model is left switched to it.

    A text longer than a sliding window is not read so.
    """
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return None, "padded: the model takes no position_ids"
    before = model.config._attn_implementation
    if before != "sdpa":
        return None, f"padded: the model's attention is {before}, not sdpa"
    packing.switch_attention(model, packing.NAME)
    reason = "padded: packed states differ from those of a text alone"
    for position_start in (0, pad_id + 1):
        try:
            packed = _read(model, stack, _packed_inputs(rows, position_start, pad_id, alone[0].device))[0]
        except (TypeError, ValueError, IndexError, RuntimeError) as error:  # (PackingUnsupportedError is a ValueError)
            reason = f"padded: packing failed ({str(error).splitlines()[0]})"
            continue
        found = torch.split(packed, [len(row) for row in rows]) if len(packed) == sum(map(len, rows)) else ()
        # (A narrower window than the first few texts is not worth packing for.)
        short = [i for i, row in enumerate(rows) if len(row) <= max(packing.PACKED.window, LENGTHS[1])]
        if found and _same(model, [found[i] for i in short], [alone[i] for i in short]):
            return position_start, "packed"
    packing.switch_attention(model, before)
    return None, reason


def _padding_is_harmless(
    model: PreTrainedModel, stack: Stack, rows: list[list[int]], alone: list[Tensor], pad_id: int
) -> bool:
    """Whether texts of several lengths in one batch, padded on the right, have the states that they have ``alone``."""
    try:
        padded = _read(model, stack, padded_inputs(rows, pad_id, alone[0].device))
    except (ValueError, IndexError, RuntimeError):
        return False
    found = [states[: len(row)] for states, row in zip(padded, rows, strict=True)]
    return _same(model, found, alone)


def _same(model: PreTrainedModel | DecoderSide, together: Sequence[Tensor], alone: Sequence[Tensor]) -> bool:
    """Whether each text's states beside others are those that it has alone, but for rounding.

    A model that ignores its mask, or that computes something over the whole batch, gives a text other states in other
    company. Rounding does so too, but less: in bfloat16, in deep models, by one or two per cent; and 8-bit weights
    round each batch by its own largest values.
    """
    dtype = str(model.dtype).removeprefix("torch.")
    quantised = getattr(model, "quantization_method", None) is not None
    most = max(ROUNDING.values()) if quantised else ROUNDING.get(dtype, ROUNDING[EXACT])
    return all(_difference(a, b, dtype=dtype) <= most for a, b in zip(alone, together, strict=True))


def _difference(alone: Tensor, together: Tensor, *, dtype: str) -> float:
    """How far apart two readings of one text at one layer are, relative to the states; (tokens, d_model) each.

    A token's error is relative to its own norm or to the median one, whichever is larger: some models give the first
    token a norm a hundred times that of others, which would hide these, and some tokens have next to none. In float32
    the worst token counts. With less precision it is the median one, or a tenth of the worst, for there a single token
    may well go to another expert of a mixture by rounding alone.
    """
    alone, together = (
        torch.nan_to_num(states.float(), nan=0.0, posinf=0.0, neginf=0.0) for states in (alone, together)
    )
    norms = alone.norm(dim=-1)
    scale = torch.maximum(norms, norms.median()).clamp(min=torch.finfo(torch.float32).tiny)
    errors = (together - alone).norm(dim=-1) / scale
    worst = errors.max()
    return float(worst if dtype == EXACT else torch.maximum(errors.median(), 0.1 * worst))
