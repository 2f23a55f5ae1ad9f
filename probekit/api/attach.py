"""Heads on a model in hand."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from probekit.training.attach import Attached, HeadShape
    from probekit.training.saved_heads import Heads


def attach(
    model: nn.Module,
    heads: str | os.PathLike[str] | Heads | Mapping[str, HeadShape | Mapping[str, Any]],
    *,
    rendered: bool = False,
) -> Attached:
    """A torch module that reads token ids by ``model`` and answers by ``heads``, to use or to train in one's own loop.

    >>> heads = {"topic": {"n_classes": 4}, "age": {"n_classes": None, "head": "mlp"}}       # doctest: +SKIP
    >>> module = probekit.attach(AutoModel.from_pretrained("gpt2"), heads)                   # doctest: +SKIP
    >>> logits = module(**tokenizer(texts, padding=True, return_tensors="pt"))["topic"]      # doctest: +SKIP

    ``model``: any transformers model, with or without a head of its own; of an encoder-decoder the encoder is read. It
    stays as it is (which parameters train, mode, dtype, attention), but for what was trained of it: tuned heads (lora,
    top:M, full) give it to ``model`` itself, in place, so load it anew for other heads.
    ``heads``: a folder that ``train`` made, or its ``Heads``; for new ones a dict of targets, each a ``HeadShape`` or a
    dict of its fields, drawn at random as torch's own layers are.

    ``forward(input_ids, attention_mask=None, position_ids=None)`` gives a dict by target: (n_texts, n_classes) logits
    (for two classes too), or (n_texts,) numbers. Padding may be on either side and be any token, which the mask says; a
    row of several texts needs ``position_ids`` that begin anew at 0. ``parameters()`` are the model's, the heads', and
    those of a soft prompt.

    The caller tokenises, as the model's tokenizer does by itself, special tokens included. Saved heads of texts in a
    prompt or a chat template need texts that the caller has put into it, and ``rendered=True`` to say so.

    Saved heads need the very weights that they were trained on. Where the model is from it says itself
    (``name_or_path``): of a local folder the hash of the weights is compared, of a hub model the commit. Where it says
    nothing, being built from a config, a ``ProbekitWarning`` comes.

    Raises ModelError for a model that gives no hidden states or is another one; SpecError for heads that don't fit it,
    of words, of part of a text, or of a decoder beside an encoder, and for a model that other heads changed.
    """
    from probekit.api.probe import ProbekitWarning
    from probekit.training.attach import attach_new, attach_saved, fitting
    from probekit.training.saved_heads import Heads, load_heads

    if isinstance(heads, str | os.PathLike):
        heads = load_heads(Path(heads))
    if not isinstance(heads, Heads):
        return attach_new(model, heads)
    found = fitting(model, heads, rendered=rendered)
    if found.doubt:
        text = f"attach: it could not be checked that the model is the one the heads were trained on: {found.doubt}"
        warnings.warn(text, ProbekitWarning, stacklevel=2)
    return attach_saved(model, heads, found)
