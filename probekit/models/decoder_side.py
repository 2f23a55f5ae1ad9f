"""One side of an encoder-decoder model, read like any other model."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from probekit.errors import SpecError
from probekit.spec import SIDES


class DecoderSide(nn.Module):
    """The whole model behind the face of its decoder: ``hidden_states`` and ``last_hidden_state`` are the decoder's.

    The encoder reads the text, and the decoder reads it too, shifted by one behind the model's start token as in
    training: the state at position i has read the text before token i, the last one the whole text but its end token.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.config = model.config
        starts = (getattr(model.config, name, None) for name in ("decoder_start_token_id", "bos_token_id"))
        self.start = int(next((start for start in starts if start is not None), 0))

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        dtype: torch.dtype = next(self.model.parameters()).dtype
        return dtype

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, output_hidden_states: bool = False
    ) -> BaseModelOutput:
        """``input_ids``: (n, tokens); ``attention_mask``: (n, tokens), padded on the right."""
        shifted = torch.cat([torch.full_like(input_ids[:, :1], self.start), input_ids[:, :-1]], dim=1)
        output: Any = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=shifted,
            decoder_attention_mask=attention_mask,
            output_hidden_states=output_hidden_states,
            use_cache=False,
        )
        return BaseModelOutput(last_hidden_state=output.last_hidden_state, hidden_states=output.decoder_hidden_states)


def one_side(model: PreTrainedModel, side: str) -> PreTrainedModel | DecoderSide:
    """The encoder or the decoder; any other model is its own only side. Raises SpecError for a side it has not."""
    if side not in SIDES:
        raise SpecError(f"--side {side}", f"one of {', '.join(SIDES)}")
    takes = inspect.signature(model.forward).parameters  # the config of half a model says that it has no other side
    if not model.config.is_encoder_decoder and "decoder_input_ids" not in takes:
        if side == "decoder":
            raise SpecError("--side decoder", "goes with encoder-decoder models", f"a {model.config.model_type}")
        return model
    return DecoderSide(model) if side == "decoder" else model.get_encoder()
