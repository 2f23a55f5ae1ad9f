"""Whether a tokenizer goes with its model and with the texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from probekit.errors import InputError
from probekit.models.tokens import Encoded

MANY_UNKNOWN = 0.1
"""Share of unknown tokens from which on it is said. WordPiece on its own language has less than 1 in 100."""

MOST_LOOKED_AT = 2000
"""Texts, character by character."""


def check_tokens(
    encoded: Encoded,
    tokenizer: PreTrainedTokenizerBase,
    *,
    size: int | None,
    texts: Sequence[str],
    names: Sequence[str],
) -> Iterator[str]:
    """What a reader must know: a vocabulary far smaller than the model's, unknown tokens, texts without any token.

    ``size``: how many tokens the model has embeddings for. ``texts``: that were encoded; ``names``: theirs, for
    messages.

    Raises InputError for a token beyond these.
    """
    if size is not None and 2 * len(tokenizer) < size:
        yield f"the tokenizer knows {len(tokenizer):,} tokens, the model {size:,}: it may be another model's"
    unknown_id = tokenizer.unk_token_id
    n_own = n_unknown = n_bare = 0
    for name, ids, special, (first, stop) in zip(
        names, encoded.ids, encoded.special, encoded.text_range.tolist(), strict=True
    ):
        if size is not None and ids.max() >= size:
            token = int(ids[ids >= size][0])
            allowed = f"the model has embeddings for tokens 0..{size - 1:,}"
            raise InputError(name, allowed, f"{token} ({tokenizer.convert_ids_to_tokens(token)!r})")
        unknown = ids[first:stop] == unknown_id
        own = int((unknown | ~special[first:stop]).sum())
        n_own, n_unknown, n_bare = n_own + own, n_unknown + int(unknown.sum()), n_bare + (own == 0)
    if n_unknown > MANY_UNKNOWN * n_own:
        share = f"{n_unknown / n_own:.0%} of the texts' tokens"
        yield f"{share} are unknown to the tokenizer ({tokenizer.unk_token}): it may not fit the texts or the model"
    dropped = _dropped_share(encoded, texts)
    if dropped > MANY_UNKNOWN:
        yield f"{dropped:.0%} of the texts' characters are in no token: the tokenizer may not fit the texts"
    if n_bare:
        several = f"{n_bare:,} texts have no token of their own and are"
        yield f"{'1 text has no token of its own and is' if n_bare == 1 else several} read as special tokens alone"


def _dropped_share(encoded: Encoded, texts: Sequence[str]) -> float:
    """Share of the characters (blanks apart) that no token has: a tokenizer without an unknown token drops them.

    Of some whole texts from everywhere; those that were cut, or are read in pieces, say nothing of it.
    """
    n = n_dropped = 0
    for i in range(0, len(texts), max(1, len(texts) // MOST_LOOKED_AT)):
        if encoded.truncated[i] or encoded.cuts[i]:
            continue
        seen = np.array([not character.isspace() for character in texts[i]], dtype=np.bool_)
        n += int(seen.sum())
        n_dropped += int((seen & ~_covered(encoded.offsets[i], len(texts[i]))).sum())
    return n_dropped / n if n else 0.0


def _covered(offsets: NDArray[np.int32], n: int) -> NDArray[np.bool_]:
    """(n,) whether a character is in some token; ``offsets``: (n_tokens, 2) first character and the one after the last.

    >>> _covered(np.array([[0, 2], [3, 4]]), 5).tolist()
    [True, True, False, True, False]
    """
    within = np.clip(offsets, 0, n)
    steps = np.zeros(n + 1, dtype=np.int64)
    np.add.at(steps, within[:, 0], 1)
    np.add.at(steps, within[:, 1], -1)
    return np.asarray(np.cumsum(steps)[:n] > 0)
