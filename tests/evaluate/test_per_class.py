"""The per-class table against scikit-learn."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import classification_report

from probekit.spec import CLASS_COLUMNS
from probekit.splits import make_splits
from tests.evaluate.made_up import ask, classes, made_up, numbers


def test_rows_are_those_of_scikit_learn():
    states, labels = made_up()
    target = classes(labels)
    found = ask(states, target, refit=False)
    (chosen,) = found.chosen
    truth = labels[chosen.test]
    report = classification_report(truth, chosen.predicted, output_dict=True, zero_division=0.0)
    assert list(found.classes.columns) == list(CLASS_COLUMNS)
    assert found.classes["class"].tolist() == ["ab", "cd", "ef"]
    assert set(found.classes["layer"]) == {chosen.layer}
    for row in found.classes.to_dict("records"):
        expected = report[row["class"]]
        np.testing.assert_allclose(
            [row["precision"], row["recall"], row["f1"], row["support"]],
            [expected["precision"], expected["recall"], expected["f1-score"], expected["support"]],
        )
    assert np.mean(found.classes["f1"]) == found.table["macro_f1"][chosen.layer]


def test_seeds_are_pooled():
    states, labels = made_up(n=150)
    target = classes(labels)
    found = ask(states, target, seeds=(0, 1))
    splits = make_splits(target, ids=np.arange(150).astype(str), seeds=(0, 1))
    tested = np.concatenate([labels[split.test] for split in splits])
    assert found.classes["support"].tolist() == [np.sum(tested == name) for name in ("ab", "cd", "ef")]
    share = np.average(found.classes["recall"], weights=found.classes["support"])  # accuracy, the splits being equal
    np.testing.assert_allclose(share, found.table["score"][found.chosen[0].layer])


def test_numbers_have_no_classes():
    states, _ = made_up(n=60)
    assert len(ask(states, numbers(np.arange(60.0))).classes) == 0
