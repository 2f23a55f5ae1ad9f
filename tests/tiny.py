"""A tiny BERT with a word-level tokenizer as a model folder, and a small labelled data set: real files, no network."""

from __future__ import annotations

from pathlib import Path

import numpy as np

WORDS = ["good", "bad", "film", "plot", "a", "the", "very", "dull", "fine", "actor"]


def save_tiny_bert(folder: Path, *, seed: int = 0, layers: int = 2) -> Path:
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=32,
    )
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def tiny_texts(n: int, *, seed: int = 0) -> tuple[list[str], list[str]]:
    """Sentences and whether they say good more often than bad."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for i in range(n):
        liked = i % 2 == 0
        words = list(rng.choice(WORDS[2:], size=int(rng.integers(2, 12))))
        words.insert(int(rng.integers(0, len(words))), "good" if liked else "bad")
        texts.append(" ".join(words))
        labels.append("pos" if liked else "neg")
    return texts, labels


def save_tiny_data(path: Path, n: int = 60) -> Path:
    texts, labels = tiny_texts(n)
    rows = [
        f"{text}\t{label}\t{i % 7 + 0.5}\tdoc{i // 3}"
        for i, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]
    path.write_text("\n".join(["text\tlabel\tscore\tdoc", *rows, ""]), encoding="utf-8")
    return path
