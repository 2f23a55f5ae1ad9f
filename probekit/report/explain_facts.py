"""What an explanation says, in words and numbers, wherever it is shown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.explanation.results import GAP, METHODS, Explanation, Importance, LayerExplanation, Trust
from probekit.plain import plain
from probekit.report.labels import METRIC_LABELS, MOST_DECIMALS, number

LEAST_AGREEMENT = 0.3
"""Below it two methods disagree."""
UNSIGNED = "gradient-norm"
NO_BASELINE = (
    "There is no text baseline to hold the layers against: the cache has no texts, or the target is of words or has "
    "several labels."
)
N_NAMED = 8
"""Words that are named in a sentence; of more it says how many."""


@dataclass(frozen=True)
class Said:
    """A sentence. ``careful``: a warning."""

    text: str
    careful: bool = False


def title(explanation: Explanation, *, named: bool = False) -> str:
    """The target, the answer that is explained and its probability, or the number. ``named``: with the text's id."""
    parts = [f"{plain(explanation.id)}:"] if named else []
    parts.append(plain(explanation.target))
    if explanation.of_word is not None:
        word = plain(explanation.word(explanation.of_word))
        parts.append(f'of "{word}" (word {explanation.of_word})')
    if explanation.probability is None:
        return " ".join(parts) + f" = {number(explanation.value)}"
    answer = f" = {plain(str(explanation.answer))}, probability {number(explanation.probability)}"
    return " ".join(parts) + answer + _otherwise(explanation)


def _otherwise(explanation: Explanation) -> str:
    """What is predicted, where that is something else."""
    predicted = explanation.predicted
    if isinstance(predicted, list):
        found = [plain(str(label)) for label in predicted]
        return "" if found == [plain(str(explanation.answer))] else f"; predicted: {', '.join(found) or 'no label'}"
    return "" if str(predicted) == str(explanation.answer) else f"; predicted: {plain(str(predicted))}"


def reading_key(explanation: Explanation, method: str | None = None) -> str:
    """How the importances of ``method`` (the first by default) are to be read."""
    method = explanation.first.method if method is None else method
    unit = "log-odds" if explanation.probability is not None else f"units of {plain(explanation.target)}"
    if method == UNSIGNED:
        return f"Importance by {method} ({METHODS[method]}): how far the answer would move, not which way."
    speaks = "speak for the answer" if explanation.probability is not None else "raise the number"
    return f"Importance by {method} ({METHODS.get(method, method)}), in {unit}: positive words {speaks}."


def checks(explanation: Explanation) -> list[Said]:
    """Whether to trust the importances, in sentences; and which words were not read."""
    said = _unread(explanation)
    for i, one in enumerate(explanation.importances):
        if one.trust is not None:
            said += _other_trust(one, one.trust) if i else _trust(explanation, one, one.trust)
    for method, value in explanation.agreement.items():
        said.append(_agreement(explanation.first.method, method, value))
    for one in explanation.importances:
        said += _sums(one)
    return said


def _unread(explanation: Explanation) -> list[Said]:
    unread = np.flatnonzero(~np.isfinite(explanation.first.words))
    if not len(unread):
        return []
    names = named(explanation.word(int(i)) for i in unread)
    of = f"{len(unread)} of {len(explanation.words)} words {'was' if len(unread) == 1 else 'were'}"
    return [Said(f"{of} not read: {names}.", careful=True)]


def _trust(explanation: Explanation, one: Importance, trust: Trust) -> list[Said]:
    n, single = trust.n_words, trust.n_words == 1
    names = named(explanation.word(i) for i in top_of(one.words, n))
    number_of, random, these = ("", "a random one", "it") if single else (f"{n} ", f"{n} random ones", "them")
    what = "number" if explanation.probability is None else "probability"
    most = f"the {number_of}word{'' if single else 's'} {_importance_of(one)} ({names})"
    said = [
        Said(
            f"Without {most} the {what} {_falls(trust.comprehensiveness)}, "
            f"without {random} it {_falls(trust.random_comprehensiveness)}."
        ),
        Said(
            f"With {these} alone the {what} {_falls(trust.sufficiency)}, "
            f"with {random} alone it {_falls(trust.random_sufficiency)}."
        ),
    ]
    if trust.comprehensiveness <= trust.random_comprehensiveness:
        said.append(Said("These words matter no more than random ones: don't rely on the importances.", careful=True))
    return said


def _importance_of(one: Importance) -> str:
    if one.method == UNSIGNED:
        return "with the largest gradient"
    return "with the highest importance"


def _other_trust(one: Importance, trust: Trust) -> list[Said]:
    """Of a method beside the first; random words are the same."""
    its, these = ("word", "it") if trust.n_words == 1 else (f"{trust.n_words} words", "them")
    alone = f"with {these} alone it {_falls(trust.sufficiency)}"
    careful = trust.comprehensiveness <= trust.random_comprehensiveness
    tail = "; no more than random words do" if careful else ""
    return [Said(f"By {one.method}: without its {its} it {_falls(trust.comprehensiveness)}{tail}, {alone}.", careful)]


def _falls(loss: float) -> str:
    return f"rises by {number(-loss)}" if loss < 0 else f"falls by {number(loss)}"


def _agreement(first: str, other: str, value: float) -> Said:
    if not math.isfinite(value):
        return Said(f"Whether {other} agrees with {first} can't be said: one of them tells no two words apart.")
    careful = value < LEAST_AGREEMENT
    tail = "; they disagree" if careful else ""
    return Said(
        f"The order of words by {other} agrees with that by {first} to {number(value)} (Spearman){tail}.", careful
    )


def _sums(one: Importance) -> list[Said]:
    said: list[Said] = []
    if math.isfinite(one.apart) and one.apart != 0:
        words = number(float(np.nansum(one.words)))
        said.append(
            Said(f"By {one.method}: {words} falls on words, {number(one.apart)} on special tokens and the prompt.")
        )
    if one.steps and math.isinf(one.gap):
        said.append(Said(f"By {one.method}: text and baseline have the same answer.", careful=True))
    elif one.steps and math.isfinite(one.gap):
        much = one.gap > GAP
        tail = f"; more than {GAP:.0%}, so they are only approximate" if much else ""
        base = "zeros for its words' embeddings" if one.baseline == "zero" else f"{one.baseline} tokens for its words"
        sums = f"{one.method} adds up to the difference from the text with {base} but for {one.gap:.2%}"
        said.append(Said(f"{sums[0].upper()}{sums[1:]}{tail}.", much))
    return said


def named(words: Iterable[str]) -> str:
    """Words for a sentence, the first few of them.

    >>> named("abcdefghij")
    '"a", "b", "c", "d", "e", "f", "g", "h" and 2 more'
    """
    shown = [f'"{plain(word)}"' for word in words]
    rest = len(shown) - N_NAMED
    return ", ".join(shown[:N_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def times(n: int) -> str:
    """How often.

    >>> times(1), times(3)
    ('once', '3 times')
    """
    return "once" if n == 1 else f"{n} times"


def top_of(importance: NDArray[np.float64], n: int) -> list[int]:
    """The ``n`` words that speak most for the answer, the first of equals first; words that were not read are none."""
    read = np.flatnonzero(np.isfinite(importance))
    return [int(i) for i in read[np.argsort(-importance[read], kind="stable")[:n]]]


def by_size(importance: NDArray[np.float64]) -> list[int]:
    """All words that were read, the largest importance first, its sign aside."""
    read = np.flatnonzero(np.isfinite(importance))
    return [int(i) for i in read[np.argsort(-np.abs(importance[read]), kind="stable")]]


def shares(importance: NDArray[np.float64], largest: float | None = None) -> NDArray[np.float64]:
    """Importances from -1 to 1, the largest being 1 with its sign aside; 0 for a word that was not read."""
    finite = np.nan_to_num(importance, nan=0.0, posinf=0.0, neginf=0.0)
    most = float(np.abs(finite).max(initial=0.0)) if largest is None else largest
    return np.asarray(finite / most if most > 0 else np.zeros_like(finite), dtype=np.float64)


def written(values: Sequence[float] | NDArray[np.float64]) -> list[str]:
    """Importances for people: three decimals, or as many more as the largest needs to have three digits.

    >>> written([1.5, -0.25]), written([0.00123, float("nan")])
    (['1.500', '-0.250'], ['0.00123', '–'])
    """
    found = [float(value) for value in values]
    largest = max((abs(value) for value in found if math.isfinite(value)), default=0.0)
    decimals = max(3, 2 - math.floor(math.log10(largest))) if largest > 0 else 3
    return [_written(value, decimals) for value in found]


def _written(value: float, decimals: int) -> str:
    if not math.isfinite(value) or abs(value) >= MOST_DECIMALS:
        return number(value)
    return f"{value:.{decimals}f}" if decimals <= 6 else f"{value:.2e}"


# Layers


def layers_title(layers: LayerExplanation) -> str:
    """What is explained at every layer."""
    answer = "" if layers.answer is None else f" = {plain(str(layers.answer))}"
    n = len(layers.layers)
    at = f"at {n} layer{'' if n == 1 else 's'}, by {plain(layers.method)}"
    return f"{plain(layers.target)}{answer} {at}, {plain(layers.probe)} probe{'' if n == 1 else 's'}"


def layer_facts(layers: LayerExplanation) -> list[Said]:
    """What stands out, in sentences."""
    if layers.baseline is None:
        return [Said(NO_BASELINE)]
    names = named(layers.word(i) for i in layers.baseline_words)
    said = [Said(f"The answer of the text baseline (words alone) hangs most on {names}.")]
    finite = np.flatnonzero(np.isfinite(layers.share))
    if len(finite):
        least, most = (int(finite[pick(layers.share[finite])]) for pick in (np.argmin, np.argmax))
        ends = [f"{layers.share[k]:.1%} (layer {layers.layers[k]})" for k in dict.fromkeys((least, most))]
        same = "that word" if len(layers.baseline_words) == 1 else "those words"
        of = f"{' to '.join(ends)} of the importance falls on {same}"
        said.append(Said(f"{of}; on words at random it would be {layers.chance:.1%}."))
    return said


def value_heading(layers: LayerExplanation) -> str:
    """What ``value`` is."""
    return "value" if layers.answer is None else "log-odds"


def score_heading(layers: LayerExplanation) -> str:
    """What ``score`` is."""
    return METRIC_LABELS.get(layers.metric, layers.metric)


def answers_of(table: Any) -> list[Any]:
    """The answers that a table of words is of, in its order; None for a number."""
    import pandas as pd

    return [None if pd.isna(answer) else answer for answer in table["answer"].drop_duplicates().tolist()]
