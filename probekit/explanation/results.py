"""What explanations say, as data; no torch here, so that reports and Python callers need none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.spec import Json

METHODS: Mapping[str, str] = {
    "occlusion": "each word left out",
    "lrp": "relevance by AttnLRP's rules",
    "integrated-gradients": "gradients along a line from a baseline",
    "gradient-x-input": "gradient times input",
    "gradient-norm": "length of the gradient, no sign",
}
"""What each method is, in words."""

DEFAULT_METHOD = "occlusion"
ALONGSIDE = ("lrp", "integrated-gradients")
"""Methods that a few texts are explained by too, to see whether they agree."""

WORD_COLUMNS = ("target", "answer", "word", "n", "n_texts", "mean_importance", "sd", "method")
"""Of the table of words over a data set."""

TRUST_COLUMNS = (
    "method",
    "n_texts",
    "comprehensiveness",
    "random_comprehensiveness",
    "sufficiency",
    "random_sufficiency",
    "beyond_random",
    "lower",
    "upper",
)
"""Of the table of methods over a data set."""

GAP = 0.01
"""How much of the difference between text and baseline integrated gradients may fail to add up to."""

REMOVALS = ("delete", "mask")
BASELINES = ("mask", "pad", "zero")


@dataclass(frozen=True)
class Settings:
    """``remove``: leave words out by "delete", or "mask" them with the token that stands for nothing. ``baseline``:
    what integrated gradients start at: the text with "mask" or "pad" for its tokens, or "zero" for their embeddings.
    """

    remove: str = "delete"
    baseline: str = "mask"


@dataclass(frozen=True)
class Trust:
    """Whether to trust an importance: what leaving words out does to the answer (DeYoung et al. 2020).

    ``comprehensiveness``: what the answer loses without its most important words; ``sufficiency``: what it loses when
    only these are left (low is good). Of classes and labels in probability, of numbers in their units. ``random_…``:
    the mean over draws of as many words at random. ``n_words``: how many words are taken out.
    """

    n_words: int
    comprehensiveness: float
    sufficiency: float
    random_comprehensiveness: float
    random_sufficiency: float


@dataclass(frozen=True)
class Importance:
    """By one method. ``words``: (n_words,) NaN for a word that was not read; ``tokens``: (n_tokens,) or None.

    ``apart``: what falls on special tokens and the prompt, NaN where it was not measured. ``gap``: see
    ``GAP``; ``steps`` and ``baseline``: of integrated gradients, else 0 and "". ``trust``: None where not
    asked for, or where there are too few words.
    """

    method: str
    words: NDArray[np.float64]
    tokens: NDArray[np.float64] | None = None
    apart: float = float("nan")
    gap: float = float("nan")
    steps: int = 0
    baseline: str = ""
    trust: Trust | None = None


@dataclass(frozen=True)
class Explanation:
    """Why a text has its answer.

    ``answer``: the class or label that is explained, None for a number. ``predicted``: what is answered. ``value``: the
    log-odds of ``answer``, or the number; ``probability``: of ``answer``, None for a number. ``words``: where they
    are in ``text``; ``tokens``: as the model reads them, ``token_word``: which word each is from, -1 for none.
    ``of_word``: which word's tag is explained, None for whole texts. ``importances``: by method, the one asked for
    first. ``remove``: how words are left out. ``agreement``: Spearman's correlation between the first method and each
    other. ``all_words``: (n_answers, n_words) by the first method for every one of ``answers``, where asked for.
    """

    id: str
    text: str
    target: str
    task: str
    answer: Any
    predicted: Any
    value: float
    probability: float | None
    words: tuple[tuple[int, int], ...]
    tokens: tuple[str, ...]
    token_word: NDArray[np.int32]
    importances: tuple[Importance, ...]
    remove: str
    of_word: int | None = None
    agreement: Mapping[str, float] = field(default_factory=dict)
    answers: tuple[Any, ...] = ()
    all_words: NDArray[np.float64] | None = None

    @property
    def first(self) -> Importance:
        """By the method that was asked for first."""
        return self.importances[0]

    def word(self, i: int) -> str:
        """The i-th word."""
        a, b = self.words[i]
        return self.text[a:b]

    def json(self) -> Json:
        """As plain JSON: numbers that are not there are None."""
        return {
            "id": self.id,
            "text": self.text,
            "target": self.target,
            "task": self.task,
            "answer": self.answer,
            "predicted": self.predicted,
            "value": self.value,
            "probability": self.probability,
            "of_word": self.of_word,
            "words": [{"word": self.word(i), "start": a, "end": b} for i, (a, b) in enumerate(self.words)],
            "tokens": [
                {"token": token, "word": None if w < 0 else int(w)}
                for token, w in zip(self.tokens, self.token_word, strict=True)
            ],
            "remove": self.remove,
            "importances": {one.method: _importance_json(one) for one in self.importances},
            "agreement": {name: _number(value) for name, value in self.agreement.items()},
        }


@dataclass(frozen=True)
class LayerExplanation:
    """Which words moved a text's answer at every layer.

    ``answer``: the class or label that is explained, None for a number. ``importance``: (n_layers, n_words) by
    ``method``, NaN for a word that was not read. ``value``: (n_layers,) log-odds of the answer, or the number.
    ``score``: (n_layers,) what each layer's probe has on the test rows, by ``metric``. ``baseline``: (n_words,) what
    the answer of the text-only baseline loses without each word; None where the cache has no texts. ``share``:
    (n_layers,) of all importance, its sign aside, how much falls on the words that the baseline's answer hangs on most
    (a fifth of them, ``baseline_words``); ``chance``: that of words at random.
    """

    text: str
    target: str
    answer: Any
    probe: str
    method: str
    metric: str
    layers: tuple[int, ...]
    words: tuple[tuple[int, int], ...]
    importance: NDArray[np.float64]
    value: NDArray[np.float64]
    score: NDArray[np.float64]
    baseline: NDArray[np.float64] | None
    baseline_words: tuple[int, ...]
    share: NDArray[np.float64]
    chance: float

    def word(self, i: int) -> str:
        """The i-th word."""
        a, b = self.words[i]
        return self.text[a:b]

    def json(self) -> Json:
        """As plain JSON: numbers that are not there are None."""
        return {
            "text": self.text,
            "target": self.target,
            "answer": self.answer,
            "probe": self.probe,
            "method": self.method,
            "words": [{"word": self.word(i), "start": a, "end": b} for i, (a, b) in enumerate(self.words)],
            "baseline": None if self.baseline is None else [_number(value) for value in self.baseline],
            "baseline_words": list(self.baseline_words),
            "chance": _number(self.chance),
            "layers": [
                {
                    "layer": layer,
                    "value": _number(self.value[k]),
                    "score": _number(self.score[k]),
                    "metric": self.metric,
                    "share": _number(self.share[k]),
                    "importance": [_number(value) for value in self.importance[k]],
                }
                for k, layer in enumerate(self.layers)
            ],
        }


def _importance_json(one: Importance) -> Json:
    trust = one.trust
    return {
        "words": [_number(value) for value in one.words],
        "tokens": None if one.tokens is None else [_number(value) for value in one.tokens],
        "apart": _number(one.apart),
        "gap": _number(one.gap),
        "steps": one.steps or None,
        "baseline": one.baseline or None,
        "trust": None if trust is None else {name: _number(value) for name, value in vars(trust).items()},
    }


def _number(value: float) -> float | int | None:
    return None if not np.isfinite(value) else int(value) if isinstance(value, int) else float(value)
