"""A tiny language model in which one direction of the embeddings alone tells good from bad, and texts in pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

OTHERS = ["film", "plot", "a", "the", "very", "actor", "scene", "of"]
GOOD, BAD = ["good", "fine", "great"], ["bad", "dull", "poor"]
ANSWERS = ["negative", "positive"]
D = 32


def save_planted(folder: Path, *, seed: int = 0, layers: int = 3, idle: bool = True, axis: bool = False) -> Path:
    """The n-th good and the n-th bad word differ in one direction alone; with ``idle`` the first block does nothing.

    The head answers "positive" by that direction, which with ``axis`` is the first dimension. All other weights are
    drawn at random.
    """
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<unk>", "<pad>", *OTHERS, *GOOD, *BAD, *ANSWERS]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", model_max_length=32
    )
    fast.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=D,
        intermediate_size=2 * D,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        pad_token_id=1,
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15)
        table = model.model.embed_tokens.weight
        table.normal_(0, 1.0)
        direction = torch.eye(D)[0] if axis else torch.nn.functional.normalize(torch.randn(D), dim=0)
        table -= torch.outer(table @ direction, direction)
        for good, bad in zip(GOOD, BAD, strict=True):
            table[vocabulary[bad]] = table[vocabulary[good]] - 3 * direction
            table[vocabulary[good]] += 3 * direction
        first = model.model.layers[0]
        if idle:
            first.self_attn.o_proj.weight.zero_()
            first.mlp.down_proj.weight.zero_()
        model.lm_head.weight[vocabulary["positive"]] += 4 * direction
        model.lm_head.weight[vocabulary["negative"]] -= 4 * direction
    model.save_pretrained(folder)
    return folder


def planted_table(n_pairs: int = 60, *, seed: int = 0) -> pd.DataFrame:
    """Pairs of texts that differ in one word, both in one part; the word comes last."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n_pairs):
        before = list(rng.choice(OTHERS, size=int(rng.integers(2, 6))))
        which = int(rng.integers(0, len(GOOD)))
        part = ("train", "train", "train", "dev", "test")[i % 5]
        for label, words in (("pos", GOOD), ("neg", BAD)):
            rows.append({"text": " ".join([*before, words[which]]), "label": label, "split": part, "pair": f"p{i}"})
    table = pd.DataFrame(rows)
    table["number"] = np.where(table["label"] == "pos", 2.0, -1.0) + rng.standard_normal(len(table)) / 100
    table["kind"] = [("a", "b", "c")[i % 3] for i in range(len(table))]
    table["topics"] = [["x"] if i % 3 else ["x", "y"] for i in range(len(table))]
    return table
