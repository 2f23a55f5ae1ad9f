"""Explanations with chosen words and numbers."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from probekit.explanation.results import WORD_COLUMNS, Explanation, Importance, LayerExplanation, Trust

SHORT = "The movie was fantastic and the acting was superb."
LONG = (
    "When the director returns to the village of his childhood , what begins as a gentle comedy about two brothers "
    "who never quite learned to talk turns into something darker , slower and far more honest , and although the last "
    "half hour drags and a few jokes miss , the wonderfully restrained performances make it the best film of the year ."
)
GERMAN = "Die Donaudampfschifffahrtsgesellschaftskapitänsmütze war großartig 🎬🔥, aber übermäßig teuer."
HEBREW = "הסרט היה נפלא אבל ארוך מדי"
ARABIC = "كان الفيلم رائعا ولكنه طويل"
NASTY = (
    "</script><script>alert(1)</script> \"quoted\" 'single' & <b>bold</b> \u202eevil\u202c \x1b[31mred $x^2$ {{7*7}}"
)


def word_spans(text):
    return tuple((m.start(), m.end()) for m in re.finditer(r"\S+", text))


def importance(method, words, seed=0, *, trust=True, tokens=None, **values):
    words = np.array(words, dtype=float)
    n = max(1, round(len(words) * 0.2))
    trusted = Trust(n, 0.64, 0.12, 0.07, 0.5) if trust and len(words) > n else None
    return Importance(method, words, tokens, trust=trusted, **values)


def explanation(text=SHORT, methods=("occlusion",), seed=0, **values):
    """Importances are drawn by ``seed``; of methods other than occlusion tokens have some, too."""
    rng = np.random.default_rng(seed)
    spans = word_spans(text)
    n = len(spans)
    word_tokens = [text[a:b] for a, b in spans]
    tokens = ("[CLS]", *word_tokens, "[SEP]")
    unit = np.array([-1, *range(n), -1], dtype=np.int32)
    base = rng.normal(size=n) * np.exp(rng.normal(size=n) - 1)
    found = []
    for k, method in enumerate(methods):
        words = base if k == 0 else base * rng.uniform(0.3, 1.5, size=n) + rng.normal(size=n) * 0.1
        more = {}
        if method != "occlusion":
            more = {"tokens": np.array([0.05, *words, -0.02]), "apart": 0.03}
        if method == "integrated-gradients":
            more |= {"gap": 0.0034, "steps": 24, "baseline": "mask"}
        if method == "gradient-norm":
            words = np.abs(words)
        found.append(importance(method, words, **more))
    fixed = {
        **{"id": "1", "text": text, "target": "label", "task": "classification", "answer": "positive"},
        **{"predicted": "positive", "value": 3.476, "probability": 0.97, "words": spans, "tokens": tokens},
        **{"token_word": unit, "importances": tuple(found), "remove": "delete"},
        **{"agreement": {method: 0.871 - 0.6 * k for k, method in enumerate(methods[1:])}},
    }
    return Explanation(**(fixed | values))


def layer_explanation(n_layers=7, text=SHORT, seed=0, **values):
    rng = np.random.default_rng(seed)
    spans = word_spans(text)
    n = len(spans)
    grow = np.linspace(0.2, 1, n_layers)[:, None]
    table = rng.normal(size=(1, n)) * grow + rng.normal(size=(n_layers, n)) * 0.3
    baseline = rng.normal(size=n)
    top = tuple(sorted(np.argsort(-np.abs(baseline))[: max(1, n // 5)].tolist()))
    fixed = {
        **{"text": text, "target": "label", "answer": "positive", "probe": "logistic", "method": "occlusion"},
        **{"metric": "accuracy", "layers": tuple(range(n_layers)), "words": spans, "importance": table},
        **{"value": table.sum(1), "score": np.linspace(0.6, 0.9, n_layers), "baseline": baseline},
        **{"baseline_words": top, "share": np.abs(table[:, top]).sum(1) / np.abs(table).sum(1), "chance": len(top) / n},
    }
    return LayerExplanation(**(fixed | values))


def words_table(answers=("negative", "positive"), n=30, seed=0, word="word{}"):
    rng = np.random.default_rng(seed)
    rows = [
        {
            **{"target": "label", "answer": answer, "word": word.format(i), "n": 2 + i % 7, "n_texts": 1 + i % 5},
            **{"mean_importance": float(rng.normal()), "sd": 0.5, "method": "occlusion"},
        }
        for answer in answers
        for i in range(n)
    ]
    table = pd.DataFrame(rows, columns=list(WORD_COLUMNS))
    order = {answer: k for k, answer in enumerate(answers)}
    table = table.assign(_k=[order[a] for a in table["answer"]])
    return (
        table.sort_values(["_k", "mean_importance"], ascending=[True, False]).drop(columns="_k").reset_index(drop=True)
    )
