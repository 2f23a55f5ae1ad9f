"""Rows without a label, rare classes, numbers with a comma and labels that are nearly one another."""

from __future__ import annotations

import json

import numpy as np
import pytest

from probekit.errors import InputError, SpecError
from probekit.splits import Column, inner_folds, make_splits
from probekit.tasks.read import read_target
from tests.splits.split_cases import names

NOTHING = [None, "", float("nan"), "  ", "\t"]


def read(values, **options):
    values = values if isinstance(values, np.ndarray) else np.array(values, dtype=object)
    return read_target(values, "y", ids=names(len(values)), **options)


def with_gaps(labels, every=4):
    """``labels`` with a gap before each ``every`` of them, and the positions that the labels have now."""
    found, rows = [], []
    for i, label in enumerate(labels):
        if i % every == 0:
            found.append(NOTHING[i // every % len(NOTHING)])
        rows.append(len(found))
        found.append(label)
    return np.array(found, dtype=object), np.array(rows)


@pytest.mark.parametrize("task", ["auto", "classification"])
def test_classes_among_gaps_are_those_of_the_labels_alone(task):
    labels = ["no", "yes", "maybe", "no"] * 10
    values, rows = with_gaps(labels)
    target, alone = read(values, task=task), read(labels, task=task)
    assert target.units.tolist() == rows.tolist()
    assert target.codes[rows].tolist() == alone.codes.tolist()
    assert target.y[rows].tolist() == labels
    assert target.classes.tolist() == alone.classes.tolist()
    assert (len(target), target.n_missing) == (len(values), 10)
    assert target.notes == ("y: 10 of 50 rows have no label and are left out",)
    assert alone.notes == ()


def test_numbers_among_gaps():
    values = np.where(np.arange(40) % 4 == 0, np.nan, np.arange(40) / 3)
    target = read(values)
    assert target.task.name == "regression"
    assert target.units.tolist() == [i for i in range(40) if i % 4]
    np.testing.assert_array_equal(target.y[target.units], values[target.units])


def test_whole_numbers_among_gaps_are_whole():
    """NumPy keeps 0, 1 and a gap as floats: not a reason to read classes as numbers."""
    target = read(np.array([0.0, 1.0, np.nan, 1.0] * 10))
    assert (target.task.name, target.classes.tolist()) == ("classification", [0, 1])
    assert target.otherwise == "regression"
    assert read(np.array([0.0, 1.0] * 10)).task.name == "regression"
    assert read(np.array([1, 2, 3, 4] * 3)).otherwise == "regression"
    assert read(np.array([1, 2, 3])).otherwise == "classification"
    assert read(["a", "b"]).otherwise == ""


def test_several_labels_among_gaps_and_none_of_the_labels():
    cells = [json.dumps(labels) for labels in (["a"], ["a", "b"], [])] * 4
    values, rows = with_gaps(cells)
    target = read(values)
    assert target.task.name == "multilabel"
    assert target.units.tolist() == rows.tolist()
    assert target.y[rows].tolist() == [[1, 0], [1, 1], [0, 0]] * 4


@pytest.mark.parametrize("values", [[None] * 5, [""] * 5, [float("nan")] * 5, [" "] * 5])
@pytest.mark.parametrize("task", ["auto", "classification", "regression", "multilabel"])
def test_no_label_at_all(values, task):
    with pytest.raises(InputError, match="column 'y': at least one row with a label; got none in 5 rows"):
        read(values, task=task)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_the_split_is_that_of_the_labelled_rows_alone(grouped, own):
    labels = ["a", "b"] * 40
    values, rows = with_gaps(labels)
    n, ids = len(values), names(len(values))
    groups = Column("writer", np.array([f"w{i // 5}" for i in range(n)], dtype=object)) if grouped else None
    split = Column("part", np.array(["train", "train", "train", "dev", "test"], dtype=object)[np.arange(n) % 5])
    for column, nothing in ((groups, None), (split, "unsupervised")):
        if column is not None:
            column.values[np.setdiff1d(np.arange(n), rows)] = nothing
    target = read(values)
    whole = make_splits(target, ids=ids, groups=groups, split=split if own else None, seeds=[0, 1])

    def part(column):
        return None if column is None else Column(column.name, column.values[rows])

    alone = make_splits(
        read_target(np.array(labels, dtype=object), "y", ids=ids[rows]),
        ids=ids[rows],
        groups=part(groups),
        split=part(split) if own else None,
        seeds=[0, 1],
    )
    for a, b in zip(whole, alone, strict=True):
        for name in ("train", "val", "test"):
            assert getattr(a, name).tolist() == rows[getattr(b, name)].tolist()
        folds = [
            inner_folds(t.truth[s.train], stratify=True, groups=None, seed=0)
            for t, s in ((target, a), (read(labels), b))
        ]
        for (fit, held), (fit_alone, held_alone) in zip(*folds, strict=True):
            assert fit.tolist() == fit_alone.tolist()
            assert held.tolist() == held_alone.tolist()


def test_a_test_part_without_labels_is_carved_and_a_labelled_row_needs_a_part():
    labels = np.array(["a", "b"] * 20 + [""] * 10, dtype=object)
    split = Column("split", np.array(["train"] * 40 + ["test"] * 10, dtype=object))
    (found,) = make_splits(read(labels), ids=names(50), split=split)
    assert found.how.startswith("column 'split', test and validation taken from train")
    split.values[3] = "unsupervised"
    with pytest.raises(
        InputError, match=r"split column 'split', of the 40 rows with a label in 'y': values are .*unsup"
    ):
        make_splits(read(labels), ids=names(50), split=split)
    split.values[:40] = "test"
    with pytest.raises(InputError, match="of the 40 rows with a label in 'y': some rows must be 'train'"):
        make_splits(read(labels), ids=names(50), split=split)


def test_rare_classes_are_left_out_where_asked():
    labels = ["a"] * 9 + ["b"] * 9 + ["c"] * 3 + ["d"] + [None] * 2
    with pytest.raises(InputError, match=r"at least 4 rows of each class.*--drop-rare 4.*got c \(3\), d \(1\)"):
        make_splits(read(labels), ids=names(24))
    target = read(labels, drop_rare=4)
    assert target.classes.tolist() == ["a", "b"]
    assert target.units.tolist() == list(range(18))
    assert target.codes[:18].tolist() == [0] * 9 + [1] * 9
    assert (target.n_missing, target.n_rare) == (2, 4)
    assert target.notes == (
        "y: 2 of 24 rows have no label and are left out",
        "y: 2 classes with fewer than 4 rows are left out, 4 rows in all: c (3), d (1)",
    )
    make_splits(target, ids=names(24))
    assert read(labels, drop_rare=1).classes.tolist() == ["a", "b", "c", "d"]
    with pytest.raises(SpecError, match="--drop-rare 10: must leave at least two classes of column 'y'; got 0"):
        read(labels, drop_rare=10)


def test_rare_labels_of_several_are_left_out():
    target = read(['["a","b"]', '["a"]', '["b","c"]', "[]"] * 3 + ['["d"]'], drop_rare=3)
    assert target.classes.tolist() == ["a", "b", "c"]
    assert target.labelled is None
    assert target.y[-1].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "values",
    [
        ["0,5", "1,25", "3", "-2,0"] * 5,
        ["1.234,5", "12,5", ",5"] * 5,
        ["1,5e-3", "2,0"] * 5 + [""] * 3,
        [*(f"{i},{i}" for i in range(19)), "unknown"],
    ],
)
def test_decimal_commas_are_named(values):
    with pytest.raises(InputError, match=r"a decimal point, not a comma \(--task y=classification reads them as"):
        read(values)
    with pytest.raises(InputError, match="numbers have a decimal point, not a comma; got"):
        read(values, task="regression")
    assert read(values, task="classification").task.name == "classification"


@pytest.mark.parametrize("values", [["a,b", "c,d"], ["1,2", "a", "b"], ["1", "2"], ["Paris, 1900", "Rome, 1800"]])
def test_other_commas_are_classes(values):
    assert read(values).task.name == "classification"


@pytest.mark.parametrize(
    ("labels", "pair"),
    [
        (["pos", "neg", "pos "], "'pos' and 'pos '"),
        (["Pos", "neg", "pos"], "'Pos' and 'pos'"),
        (["caf\u00e9", "bar", "cafe\u0301"], "'cafe\u0301' and 'caf\u00e9'"),
        (["x\u00a0", "y", "x"], r"'x' and 'x\\xa0'"),
        (['["joy"]', '["Joy","sad"]', '["joy "]'], "'Joy' and 'joy'"),
    ],
)
def test_labels_that_are_nearly_one_another_are_named(labels, pair):
    (note,) = read(labels * 2).notes
    assert note.startswith("y: classes that differ only in blanks, upper and lower case or Unicode form are kept apart")
    assert pair.replace("\\\\", "\\") in note
    assert read(["pos", "neg", "positive"]).notes == ()
