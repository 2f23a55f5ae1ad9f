"""Texts to token ids, with truncation counted and the text's own place in them known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from probekit.errors import InputError, ModelError, SpecError
from probekit.models.alignment import one_copy, word_of_tokens
from probekit.models.config import read_config
from probekit.models.foreign import foreign
from probekit.models.prompts import Template, check_stride, cut_text, text_range, window_text
from probekit.models.source import ModelSource

CHUNK = 1024
PLAIN = Template()


@dataclass(frozen=True)
class Encoded:
    """What the model reads, per text i.

    ``ids[i]``: (n_tokens,) int32, special tokens included. ``special[i]``, ``word[i]``: (n_tokens,) whether a token is
    a special one, and the index of the word it is from by the tokenizer's own idea of words (-1 for none).
    ``offsets[i]``: (n_tokens, 2) first character in the text, and the one after the last; an empty range for special
    tokens, others outside of it for what a prompt puts around the text. ``truncated``: (n,) whether the text was cut.
    ``text_range``: (n, 2) first token of the text itself, and the one after its last: without special tokens and
    without what a prompt puts around it. ``cuts[i]``: where the text is cut into pieces that are read one by one.
    """

    ids: list[NDArray[np.int32]]
    special: list[NDArray[np.bool_]]
    word: list[NDArray[np.int32]]
    offsets: list[NDArray[np.int32]]
    cuts: list[tuple[int, ...]]
    truncated: NDArray[np.bool_]
    text_range: NDArray[np.int64]

    @property
    def n_tokens(self) -> NDArray[np.int32]:
        """(n,) tokens per text."""
        return np.array([len(row) for row in self.ids], dtype=np.int32)


def data_words(encoded: Encoded, words: Sequence[Sequence[str]]) -> list[NDArray[np.int32]]:
    """Per text (n_tokens,) which of its ``words``, that it was joined from, each token is from; -1 for none."""
    found = zip(encoded.offsets, words, encoded.cuts, strict=True)
    return [one_copy(word_of_tokens(offsets, of_text), cuts) for offsets, of_text, cuts in found]


def load_tokenizer(source: ModelSource, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the model's fast tokenizer.

    Raises ModelError if there is none that transformers can load, or one that knows no words.
    """
    transformers_logging.set_verbosity_error()
    name = f"model {source.name}"
    if source.gguf_file is None:  # where reading it once more takes seconds
        read_config(source, trust_remote_code=trust_remote_code)  # or its faults would be said to be the tokenizer's
    with foreign(name, "no tokenizer could be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(
            source.load_from, **source.pinned, trust_remote_code=trust_remote_code
        )
        special = set(tokenizer.all_special_tokens)
        knows_words = any(token not in special and any(map(str.isalnum, token)) for token in tokenizer.get_vocab())
    if not tokenizer.is_fast:
        raise ModelError(name, "probekit needs a fast tokenizer", type(tokenizer).__name__)
    if not knows_words:  # transformers makes up a tokenizer of special tokens where there are no files
        message = "needs its tokenizer's files (tokenizer.json, or vocab.txt and the like)"
        raise ModelError(name, message, f"a vocabulary of {len(tokenizer)} tokens without a word")
    limit = tokenizer.model_max_length
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        raise ModelError(f"{name}, tokenizer_config.json, model_max_length", "must be a number", repr(limit))
    return tokenizer


def choose_max_length(asked: int | None, tokenizer: PreTrainedTokenizerBase, max_positions: int | None) -> int:
    """The most tokens a text may have: as asked, within what tokenizer and model can read."""
    # A limit below 1, or one that no text reaches, stands for none.
    limits = [limit for limit in (tokenizer.model_max_length, max_positions) if limit and 1 <= limit < 1 << 30]
    longest = int(min(limits, default=8192))
    if asked is None:
        return longest
    if not 1 <= asked <= longest:
        raise SpecError("--max-length", f"this model reads 1 to {longest} tokens", str(asked))
    return asked


def encode(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    max_length: int,
    ids: Sequence[str],
    template: Template = PLAIN,
    stride: int | None = None,
    on_progress: Callable[[int], None] = lambda _done: None,
) -> Encoded:
    """Tokenise each text inside ``template``, with the tokenizer's own special tokens unless the template has them.

    A prompt that is too long loses tokens at the end of the text, never of what stands around it; with ``stride`` it
    is read in pieces instead that share so many tokens.

    Raises InputError for a text that has no tokens at all (``ids`` names it), SpecError if ``max_length`` leaves no
    room.
    """
    n_special = tokenizer.num_special_tokens_to_add() if template.add_special_tokens else 0
    if max_length <= n_special:
        raise SpecError("--max-length", f"must leave room beside {n_special} special tokens", str(max_length))
    if stride is not None:
        check_stride(stride, max_length - n_special)  # whether or not a text is long enough to need it
    found = Encoded([], [], [], [], [], np.zeros(len(texts), dtype=bool), np.zeros((len(texts), 2), dtype=np.int64))
    special_ids = frozenset(tokenizer.all_special_ids)
    for start in range(0, len(texts), CHUNK):
        part = texts[start : start + CHUNK]
        with foreign("the model's tokenizer", "can't tokenise the texts"):
            batch = tokenizer([template.render(text) for text in part], add_special_tokens=template.add_special_tokens)
        for i, (text, encoding) in enumerate(zip(part, batch.encodings, strict=True), start=start):
            if not encoding.ids:
                raise InputError(f"example {ids[i]}", "must give at least one token", repr(text[:40]))
            if any(encoding.type_ids) and "token_type_ids" in tokenizer.model_input_names:
                raise ModelError("the model's tokenizer", "must give tokens of type 0 alone; other types are not read")
            _append(found, i, encoding, text, template, max_length=max_length, stride=stride, special=special_ids)
        on_progress(len(found.ids))
    return found


def _append(
    found: Encoded,
    i: int,
    encoding: Any,
    text: str,
    template: Template,
    *,
    max_length: int,
    stride: int | None,
    special: frozenset[int],
) -> None:
    """Add one tokenised text, cut to ``max_length`` or into pieces."""
    within = text_range(encoding.offsets, template.span(text))
    cuts: tuple[int, ...] = ()
    if stride is None:
        kept, within = cut_text(len(encoding.ids), within, max_length)
    else:
        kept, cuts = window_text(len(encoding.ids), within, max_length, stride=stride)
    ids = np.array(encoding.ids, dtype=np.int32)[kept]
    added = np.array(encoding.special_tokens_mask, dtype=bool)[kept]
    word = np.array([-1 if w is None else w for w in encoding.word_ids], dtype=np.int32)[kept]
    is_special = added | np.array([token in special for token in ids.tolist()], dtype=bool)
    word[is_special] = -1
    found.ids.append(ids)
    found.special.append(is_special)
    found.word.append(one_copy(word, cuts))
    found.offsets.append(
        (np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2) - template.first_character(text))[kept]
    )
    found.cuts.append(cuts)
    found.truncated[i] = not cuts and len(ids) < len(encoding.ids)
    found.text_range[i] = within
