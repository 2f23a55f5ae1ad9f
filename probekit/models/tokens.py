"""Texts to token ids, with truncation counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from probekit.errors import InputError, ModelError, SpecError
from probekit.models.source import ModelSource

CHUNK = 1024


@dataclass(frozen=True)
class Encoded:
    """Token ids per text (special tokens included) and whether the text was cut, (n,)."""

    ids: list[list[int]]
    truncated: NDArray[np.bool_]

    @property
    def n_tokens(self) -> NDArray[np.int32]:
        """(n,) tokens per text."""
        return np.array([len(row) for row in self.ids], dtype=np.int32)


def load_tokenizer(source: ModelSource, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the model's fast tokenizer.

    Raises:
        ModelError: there is none that transformers can load.
    """
    transformers_logging.set_verbosity_error()
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source.load_from,
            gguf_file=source.gguf_file,
            revision=source.revision if source.on_hub else None,
            trust_remote_code=trust_remote_code,
        )
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise ModelError(
            f"model {source.name}", f"no tokenizer could be loaded: {str(error).splitlines()[0]}"
        ) from error
    if not tokenizer.is_fast:
        raise ModelError(f"model {source.name}", "probekit needs a fast tokenizer", type(tokenizer).__name__)
    return tokenizer


def choose_max_length(asked: int | None, tokenizer: PreTrainedTokenizerBase, max_positions: int | None) -> int:
    """The most tokens a text may have: as asked, within what tokenizer and model can read."""
    limits = [limit for limit in (tokenizer.model_max_length, max_positions) if limit and limit < 1 << 30]
    longest = min(limits, default=8192)
    if asked is None:
        return int(longest)
    if not 1 <= asked <= longest:
        raise SpecError("--max-length", f"this model reads 1 to {longest} tokens", str(asked))
    return asked


def encode(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    max_length: int,
    ids: Sequence[str],
    on_progress: Callable[[int], None] = lambda _done: None,
) -> Encoded:
    """Tokenise with the tokenizer's own special tokens.

    Raises:
        InputError: a text that has no tokens at all (``ids`` names it).
    """
    if max_length <= tokenizer.num_special_tokens_to_add():
        raise SpecError(
            "--max-length",
            f"must leave room beside {tokenizer.num_special_tokens_to_add()} special tokens",
            str(max_length),
        )
    rows: list[list[int]] = []
    truncated = np.zeros(len(texts), dtype=bool)
    for start in range(0, len(texts), CHUNK):
        batch = tokenizer(list(texts[start : start + CHUNK]), truncation=True, max_length=max_length)
        for i, encoding in enumerate(batch.encodings):
            truncated[start + i] = bool(encoding.overflowing)
        rows.extend(batch["input_ids"])
        on_progress(len(rows))
    for i, row in enumerate(rows):
        if not row:
            raise InputError(f"example {ids[i]}", "must give at least one token", repr(texts[i][:40]))
    return Encoded(rows, truncated)
