"""Whether a tokenizer goes with its model and with the texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transformers import PreTrainedTokenizerBase

from probekit.errors import InputError
from probekit.models.tokens import Encoded

MANY_UNKNOWN = 0.1
"""Share of unknown tokens from which on it is said. WordPiece on its own language has less than 1 in 100."""


def check_tokens(
    encoded: Encoded, tokenizer: PreTrainedTokenizerBase, *, size: int | None, names: Sequence[str]
) -> Iterator[str]:
    """What a reader must know: a vocabulary far smaller than the model's, unknown tokens, texts without any token.

    ``size``: how many tokens the model has embeddings for. ``names``: of the texts, for messages.

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
    if n_bare:
        texts = "1 text has" if n_bare == 1 else f"{n_bare:,} texts have"
        yield f"{texts} no token of their own and are read as special tokens alone"
