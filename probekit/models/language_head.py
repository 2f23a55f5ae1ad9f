"""The head by which a language model says its next token: loaded for a model whose states are read already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from probekit.errors import ModelError, SpecError
from probekit.models.backbone import Backbone
from probekit.models.config import read_config
from probekit.models.decoder_side import DecoderSide
from probekit.models.foreign import foreign
from probekit.models.live import whole_model
from probekit.models.loading import DTYPES
from probekit.models.source import ModelSource

TOKENS_AT_ONCE = 512
"""Tokens whose logits over the whole vocabulary are in memory at a time."""


@dataclass
class _OnlyStates(BaseModelOutput):  # type: ignore[misc]  # (transformers is not checked)
    """What a model puts out: last hidden states, and nothing of whatever else a head may hand on."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(name)


class _GivenStates(nn.Module):
    """Stands where the model without its head stood, and gives the states that it is handed."""

    states: Tensor | None = None

    def forward(self, *_args: Any, **_kwargs: Any) -> _OnlyStates:
        """The states, whatever is asked."""
        return _OnlyStates(last_hidden_state=self.states)


@dataclass(frozen=True)
class LanguageHead:
    """All that a language model does behind its last hidden states; ``model``: it, with nothing before that."""

    model: nn.Module
    given: _GivenStates
    device: torch.device
    dtype: torch.dtype

    @torch.no_grad()
    def logits(self, states: Tensor) -> Tensor:
        """(n, vocabulary) float32 for last hidden states (n, d_model), behind the final norm."""
        nothing = torch.zeros(1, len(states), dtype=torch.long, device=self.device)
        with self._given(states.to(self.device, self.dtype)[None]):
            found: Tensor = self.model(input_ids=nothing, use_cache=False, return_dict=True).logits[0]
        return found.float()

    @contextmanager
    def _given(self, states: Tensor) -> Iterator[None]:
        self.given.states = states
        try:
            yield
        finally:
            self.given.states = None

    def losses(self, states: Tensor, sequences: Sequence[NDArray[np.int32]]) -> NDArray[np.float64]:
        """(n,) mean over a text's tokens of minus the log-probability of its next one, in nats; NaN for a lone token.

        ``states``: (total_tokens, d_model), text after text. The logits of ``TOKENS_AT_ONCE`` are in memory at a time.
        """
        lengths = np.array([len(sequence) for sequence in sequences])
        ends = np.cumsum(lengths)
        ids = np.concatenate(sequences).astype(np.int64)
        places = np.setdiff1d(np.arange(ends[-1]), ends - 1)  # no token follows a text's last one
        found = np.zeros(ends[-1])
        for start in range(0, len(places), TOKENS_AT_ONCE):
            at = places[start : start + TOKENS_AT_ONCE]
            logits = self.logits(states[torch.from_numpy(at).to(states.device)])
            following = torch.from_numpy(ids[at + 1]).to(logits.device)
            found[at] = torch.nn.functional.cross_entropy(logits, following, reduction="none").double().cpu().numpy()
        sums = np.add.reduceat(found, ends - lengths)
        return np.where(lengths > 1, sums / np.maximum(lengths - 1, 1), np.nan)

    def answers(self, states: Tensor, words: tuple[int, int]) -> NDArray[np.float64]:
        """(n,) logit of the second of two tokens minus that of the first, for the last states (n, d_model) of texts."""
        parts = [
            self.logits(some)[:, list(words)].double().cpu().numpy() for some in torch.split(states, TOKENS_AT_ONCE)
        ]
        found = np.concatenate(parts)
        return np.asarray(found[:, 1] - found[:, 0])


def has_language_head(source: ModelSource, backbone: Backbone) -> bool:
    """Whether the model was saved as one that says its next token, by its config; each token sees those before it.

    (GGUF files do not say what was saved; a causal model of a kind that has a head is taken to have it.)
    """
    if isinstance(backbone.model, DecoderSide) or not backbone.causal:
        return False
    config = backbone.model.config
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    names = {known} if isinstance(known, str) else set(known or ())
    if source.gguf_file is not None and not config.architectures:
        return bool(names)
    return bool(names & set(config.architectures or ()))


def load_language_head(source: ModelSource, backbone: Backbone, *, trust_remote_code: bool) -> LanguageHead:
    """The head of the model at ``source``, whose states ``backbone`` reads.

    A GGUF file without an output matrix has the embeddings for it, which are in memory already. Of other models all
    weights are loaded once more, and all but the head are let go.

    Raises ModelError for a model without such a head, and for one whose weights are not in the checkpoint.
    """
    name = f"model {source.name}"
    if not has_language_head(source, backbone):
        got = ", ".join(backbone.model.config.architectures or ()) or backbone.model.config.model_type
        raise ModelError(name, "must have been saved with a language-model head (a causal one)", got)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    dtype = DTYPES[backbone.dtype]
    with foreign(name, "its language-model head can't be loaded"):
        found = _tied(backbone) if source.gguf_file is not None else None
        model = found if found is not None else _loaded(source, dtype, name, trust_remote_code=trust_remote_code)
    given = _GivenStates()
    setattr(model, model.base_model_prefix, given)
    model = model.to(backbone.device).eval().requires_grad_(False)
    return LanguageHead(model, given, backbone.device, dtype)


def _tied(backbone: Backbone) -> Any:
    """The head with the embeddings of the model for its matrix, nothing loaded; None if it needs more than that."""
    config = backbone.model.config
    if not getattr(config, "tie_word_embeddings", False):
        return None
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    output = model.get_output_embeddings()
    if output is None:
        return None
    setattr(model, model.base_model_prefix, nn.Identity())
    output.weight = whole_model(backbone).get_input_embeddings().weight
    left = [*model.parameters(), *model.buffers()]
    return None if any(tensor.is_meta for tensor in left) else model


def _loaded(source: ModelSource, dtype: torch.dtype, name: str, *, trust_remote_code: bool) -> Any:
    model, found = AutoModelForCausalLM.from_pretrained(
        source.load_from,
        config=read_config(source, trust_remote_code=trust_remote_code),
        dtype=dtype,
        output_loading_info=True,
        trust_remote_code=trust_remote_code,
        **source.pinned,
    )
    missing = [key for key in sorted(found["missing_keys"]) if not key.startswith(f"{model.base_model_prefix}.")]
    if missing:
        raise ModelError(name, "weights of its language-model head are not in the checkpoint", ", ".join(missing[:3]))
    return model


def one_token_words(tokenizer: PreTrainedTokenizerBase, words: Sequence[str], source: str) -> tuple[int, int]:
    """The tokens of two words. Raises SpecError, which begins with ``source``, for one that is not one token."""
    found = []
    for word in words:
        ids = tokenizer(word, add_special_tokens=False)["input_ids"]
        pieces = tokenizer.convert_ids_to_tokens(ids)
        if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
            hint = "" if word.startswith(" ") else " (many vocabularies have a word with the blank before it)"
            raise SpecError(source, f"{word!r} must be one token of the model{hint}", " ".join(map(repr, pieces)))
        found.append(int(ids[0]))
    if found[0] == found[1]:
        raise SpecError(source, "two words with tokens of their own", f"{words[0]!r} twice")
    return found[0], found[1]
