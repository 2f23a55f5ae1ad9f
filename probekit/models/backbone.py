"""The frozen model, loaded once: texts in as token ids, ragged per-layer states out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from probekit.errors import SpecError
from probekit.models import packing
from probekit.models.blocks import Stack, find_stack, stream_states
from probekit.models.decoder_side import DecoderSide
from probekit.models.sites import at_site
from probekit.spec import SIDES

CALIBRATION = ([1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1])


@dataclass(frozen=True)
class Backbone:
    """A model ready to be read.

    ``position_start``: the id of the first position in a packed row (RoBERTa counts from pad + 1); None where the model
    can't be read packed, and ``batching`` says why. ``longest_packed``: tokens of the longest text that no sliding
    window cuts; a longer one is padded. ``length_limit``: up to this length texts are read one way and above it
    another, so that no batch may hold both. ``causal``: a token sees only those before it.
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

    @property
    def padded(self) -> bool:
        """Whether batches hold padding."""
        return self.position_start is None

    @property
    def n_parameters(self) -> int:
        """How many weights a token passes on its way through the blocks; 0 where no blocks were found."""
        seen = {id(p): p.numel() for block in self.stack.blocks for p in block.parameters()}
        return sum(seen.values())

    def stream(
        self, sequences: Sequence[list[int]], *, layers: tuple[int, ...], receive: Callable[[int, Tensor], None]
    ) -> None:
        """Read token ids as one batch; ``receive(layer, states)`` gets float32 (total_tokens, d_model), ragged.

        The order of tokens is that of ``sequences``. Packed where the model allows it, else padded on the right.
        """
        if self.position_start is not None and max(map(len, sequences)) <= self.longest_packed:
            inputs = _packed_inputs(sequences, self.position_start, self.pad_id, self.device)

            def ragged(states: Tensor) -> Tensor:
                return states[0].to(self.device).float()
        else:
            if self.position_start is not None:
                packing.switch_attention(self.model, "sdpa")
            inputs = _padded_inputs(sequences, self.pad_id, self.device)
            real = inputs["attention_mask"].bool()

            def ragged(states: Tensor) -> Tensor:
                return states.to(self.device)[real].float()

        try:
            with torch.inference_mode():
                stream_states(
                    self.model, self.stack, inputs, layers=layers, receive=lambda k, states: receive(k, ragged(states))
                )
        finally:
            if self.position_start is not None:
                packing.switch_attention(self.model, packing.NAME)


def prepare(
    model: PreTrainedModel,
    *,
    device: torch.device,
    dtype: str,
    dtype_reason: str,
    side: str = "encoder",
    site: str = "block",
) -> Backbone:
    """Find out by short runs how a model has to be read: its stack, causality, and whether packing agrees with padding.

    ``side``: of an encoder-decoder model, "encoder" or "decoder". ``site``: "block" for the residual stream, or what
    the "attention" or the "mlp" adds to it.
    """
    # Spread over several devices, or quantised, it is where it belongs already.
    spread = hasattr(model, "hf_device_map") or getattr(model, "is_quantized", False)
    whole = (model if spread else model.to(device)).eval().requires_grad_(False)
    model = _one_side(whole, side)
    config = model.config.get_text_config()
    _keep_no_cache(whole)
    pad_id = config.pad_token_id if getattr(config, "pad_token_id", None) is not None else 0
    vocabulary = max(2, int(getattr(config, "vocab_size", 2)))
    rows = [[(7 * i + 11 * j + 5) % vocabulary for j in range(len(row))] for i, row in enumerate(CALIBRATION)]
    rows = [[token + 1 if token == pad_id and token + 1 < vocabulary else token for token in row] for row in rows]
    one = _padded_inputs(rows[:1], pad_id, device)
    stack = find_stack(model, one)
    seen_at = at_site(model, stack, one, site)
    packing.PACKED.window = getattr(config, "attention_chunk_size", None) or packing.NO_LIMIT
    position_start, why = _try_packing(model, stack, rows, pad_id, device)
    positions = getattr(config, "max_position_embeddings", None)
    return Backbone(
        model=model,
        stack=seen_at,
        device=device,
        dtype=dtype,
        dtype_reason=dtype_reason,
        causal=side == "decoder" or _is_causal(model, stack, one, vocabulary),
        position_start=position_start,
        batching=why
        if stack.blocks
        else f"{why}; no stack of blocks found, so all layers are kept until the pass ends",
        pad_id=pad_id,
        max_positions=None
        if not positions or positions < 1
        else int(positions) - _position_offset(whole, int(positions)),
        longest_packed=packing.PACKED.window,
        length_limit=_length_limit(config),
    )


def _length_limit(config: Any) -> int | None:
    """The length up to which a rope that depends on the length is read one way, and above it another (longrope)."""
    parameters = getattr(config, "rope_parameters", None) or {}
    limit = parameters.get("original_max_position_embeddings") or getattr(
        config, "original_max_position_embeddings", None
    )
    return int(limit) if limit and parameters.get("rope_type") == "longrope" else None


def _keep_no_cache(model: torch.nn.Module) -> None:
    """Keys and values kept for generation would hold memory for every block passed, and nobody generates here."""
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        if getattr(config, "use_cache", False):
            config.use_cache = False


def _one_side(model: PreTrainedModel, side: str) -> PreTrainedModel | DecoderSide:
    if side not in SIDES:
        raise SpecError(f"--side {side}", f"one of {', '.join(SIDES)}")
    if not model.config.is_encoder_decoder:
        if side == "decoder":
            raise SpecError("--side decoder", "goes with encoder-decoder models", f"a {model.config.model_type}")
        return model
    return DecoderSide(model) if side == "decoder" else model.get_encoder()


def _position_offset(model: torch.nn.Module, positions: int) -> int:
    """RoBERTa-like tables of positions keep the first pad + 1 of them for padding."""
    tables = [m for m in model.modules() if isinstance(m, torch.nn.Embedding) and m.num_embeddings == positions]
    return max((table.padding_idx + 1 for table in tables if table.padding_idx is not None), default=0)


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


def _padded_inputs(rows: Sequence[list[int]], pad_id: int, device: torch.device) -> dict[str, Tensor]:
    """Pad on the right: absolute and rotary positions then need no correction, whatever side the tokenizer prefers."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def _read(model: PreTrainedModel, stack: Stack, inputs: dict[str, Tensor]) -> Tensor:
    states: list[Tensor] = []
    layers = (stack.n_layers,)
    with torch.inference_mode():
        stream_states(model, stack, inputs, layers=layers, receive=lambda _layer, hidden: states.append(hidden.float()))
    return states[0]


def _is_causal(model: PreTrainedModel, stack: Stack, inputs: dict[str, Tensor], vocabulary: int) -> bool:
    """Change the last token: in a causal model nothing before it moves."""
    ids = inputs["input_ids"].clone()
    ids[0, -1] = (ids[0, -1] + 3) % vocabulary
    if "position_ids" in inputs or getattr(model.config, "_attn_implementation", "") == packing.NAME:
        packing.PACKED.lengths = [ids.shape[1]]
    before, after = (_read(model, stack, {**inputs, "input_ids": changed}) for changed in (inputs["input_ids"], ids))
    return bool(torch.equal(before[0, 0], after[0, 0]))


def _try_packing(
    model: PreTrainedModel, stack: Stack, rows: list[list[int]], pad_id: int, device: torch.device
) -> tuple[int | None, str]:
    """Packed is used only where three short texts give the same states as padded; the model is left switched to it."""
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return None, "padded: the model takes no position_ids"
    padded = _padded_inputs(rows, pad_id, device)
    expected = _read(model, stack, padded)[padded["attention_mask"].bool()]
    before = model.config._attn_implementation
    if before != "sdpa":
        return None, f"padded: the model's attention is {before}, not sdpa"
    packing.switch_attention(model, packing.NAME)
    reason = "padded: packed states differ from padded ones"
    tolerance = 1e-4 if expected.dtype == torch.float32 and model.dtype == torch.float32 else 0.05
    for position_start in (0, pad_id + 1):
        try:
            packed = _read(model, stack, _packed_inputs(rows, position_start, pad_id, device))[0]
        except (packing.PackingUnsupportedError, TypeError, IndexError, RuntimeError) as error:
            reason = f"padded: packing failed ({str(error).splitlines()[0]})"
            continue
        if packed.shape == expected.shape and (packed - expected).norm() <= tolerance * expected.norm():
            return position_start, "packed"
    packing.switch_attention(model, before)
    return None, reason
