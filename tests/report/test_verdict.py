"""What a curve says, in words: exact about what was compared."""

from __future__ import annotations

import numpy as np
import pytest

from probekit.report.facts import layer_facts
from tests.report.made_up import curve


def verdict(table):
    (facts,) = layer_facts(table)
    return list(facts.verdict)


BETTER = (
    "Better than the majority class and the words alone (TF-IDF): accuracy 0.830 at layer 2 (95% interval 0.800 to "
    "0.860) is 0.050 (0.020 to 0.080) above the better of them, 0.780."
)


@pytest.mark.parametrize(
    ("scores", "columns", "said"),
    [
        ([0.6, 0.7, 0.83], {"text_baseline": 0.78}, BETTER),
        (
            [0.6, 0.7, 0.83],
            {},
            "Better than the majority class: accuracy 0.830 at layer 2 (95% interval 0.800 to 0.860) is 0.330 (0.300 "
            "to 0.360) above it, 0.500.",
        ),
        (
            [0.6, 0.7, 0.83],
            {"text_baseline": 0.81},
            "The same, as far as the test rows tell, as the words alone (TF-IDF): accuracy 0.830 at layer 2 (95% "
            "interval 0.800 to 0.860), against 0.810.",
        ),
        (
            [0.6, 0.7, 0.83],
            {"text_baseline": 0.9},
            "Worse than the words alone (TF-IDF): accuracy 0.830 at layer 2 (95% interval 0.800 to 0.860), "
            "against 0.900.",
        ),
        (
            [0.51, 0.52],
            {"text_baseline": 0.4},
            "Nothing readable here: accuracy 0.520 at layer 1 (95% interval 0.490 to 0.550) is not clearly above the "
            "majority class, 0.500.",
        ),
        (
            [0.4, 0.45],
            {"text_baseline": 0.9},
            "Nothing readable here: accuracy 0.450 at layer 1 (95% interval 0.420 to 0.480) is not above the "
            "majority class, 0.500.",
        ),
        (
            [0.2, 0.4],
            {"metric": "entity_f1", "text_baseline": 0.3},
            "Better than the commonest tag and each word looked up: entity F1 0.400 at layer 1 (95% interval 0.370 to "
            "0.430) is 0.100 (0.070 to 0.130) above the better of them, 0.300.",
        ),
        (
            [0.2, 0.4],
            {"metric": "entity_f1", "text_baseline": 0.39},
            "The same, as far as the test rows tell, as each word looked up: entity F1 0.400 at layer 1 (95% interval "
            "0.370 to 0.430), against 0.390.",
        ),
        (
            [-0.9, -0.2],
            {"metric": "r2", "baseline": -0.8},
            "Nothing readable here: R² -0.200 at layer 1 (95% interval -0.230 to -0.170) is not above "
            "zero, the mean of the test rows themselves.",
        ),
        (
            [0.0, 0.02],
            {"metric": "r2", "baseline": -0.8},
            "Nothing readable here: R² 0.020 at layer 1 (95% interval -0.010 to 0.050) is not clearly above zero, "
            "the mean of the test rows themselves.",
        ),
        (
            [0.6, 0.7],
            {"baseline": np.nan},
            "Nothing to hold it against: accuracy 0.700 at layer 1 (95% interval 0.670 to 0.730).",
        ),
    ],
)
def test_the_first_sentence(scores, columns, said):
    assert verdict(curve(scores, **columns))[0] == said


def test_the_end_of_the_interval_decides_and_not_the_score():
    """Exactly at the words alone is not above them."""
    assert verdict(curve([0.6, 0.75], half=0.25))[0].startswith("Nothing readable here")
    assert verdict(curve([0.6, 0.75], half=0.2))[0].startswith("Better than the majority class")
    assert verdict(curve([0.6, 0.75], half=0.125, text_baseline=0.625))[0].startswith("The same, as far as")
    assert verdict(curve([0.6, 0.75], half=0.125, text_baseline=0.875))[0].startswith("The same, as far as")


@pytest.mark.parametrize(
    ("columns", "sentences"),
    [
        ({"random_model": 0.81}, ["No better than the same layer with random weights: 0.810."]),
        ({"random_model": 0.7}, []),
        ({"length_baseline": 0.85}, ["No better than the length alone: 0.850."]),
        ({"p_vs_best": [0.3, 0.01, np.nan]}, ["Not clearly better than layer 0, the embeddings: 0.600 there."]),
        ({"p_vs_best": [0.01, 0.3, np.nan]}, []),
        ({"n_test": 29}, ["Weak: only 29 test rows."]),
        (
            {"group": "author", "n_groups_test": 5, "n_groups_crossing": 0},
            ["Weak: only 5 test groups of author."],
        ),
        (
            {"group": "author", "n_groups_test": 50, "n_groups_crossing": 3},
            ["Too high, perhaps: rows of one author are both in the test and elsewhere."],
        ),
        ({"val_score": [0.1, 0.8, 0.8 + 1e-14]}, ["Layers 1 and 2 tie on validation; the shallowest is taken."]),
        ({"val_score": [0.1, 0.8, 0.8 + 1e-9]}, []),
    ],
)
def test_what_else_is_said(columns, sentences):
    assert verdict(curve([0.6, 0.7, 0.83], **columns))[1:] == sentences


def test_three_ties_and_many():
    tied = curve([0.6, 0.83, 0.8, 0.7], val_score=[0.5, 0.9, 0.9, 0.9])
    assert verdict(tied)[-1] == "Layers 1, 2 and 3 tie on validation; the shallowest is taken."
    many = verdict(curve([0.8] * 12, val_score=1.0))
    assert many[1:] == [
        "Layer 0, the embeddings, is itself best on validation: no deeper layer was better.",
        "Layers 0..11 tie on validation; the shallowest is taken.",
    ]


def test_where_nothing_is_readable_no_more_is_compared():
    said = verdict(curve([0.5, 0.51], random_model=0.6, p_vs_best=[0.9, np.nan]))
    assert len(said) == 1


def test_without_a_score_or_a_choice():
    assert verdict(curve([0.6, 0.7], ci_low=np.nan)) == [
        "Nothing can be said: layer 1 has no test score or no interval."
    ]
    assert verdict(curve([0.6, 0.7], selected=False)) == ["No layer has a validation score, so none is selected."]


def test_without_a_baseline_r2_has_to_be_above_zero():
    said = verdict(curve([0.0, 0.02], metric="r2", baseline=np.nan))[0]
    assert said.endswith("is not clearly above zero, the mean of the test rows themselves.")
