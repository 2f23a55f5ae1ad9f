"""Who trains, who chooses, who is tested: the promises, and the leaks that break them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.errors import InputError, SpecError
from probekit.splits import Column, Split, make_splits, read_parts
from probekit.tasks.read import read_target
from tests.splits.split_cases import (
    check_disjoint_and_complete,
    classes,
    group_parts,
    grouping,
    names,
    numbers,
    parts,
)

EMOBANK = Path(__file__).parents[3] / "shared" / "data" / "emobank" / "emobank.csv"

# Labels with at least four rows of each class, so that any of them can be split.
LABELS = (
    st.lists(st.integers(0, 4), min_size=8, max_size=80)
    .map(lambda drawn: [c for c in drawn for _ in range(4)] + drawn[:3])
    .filter(lambda labels: len(set(labels)) >= 2)
)


# --- without a split column


@settings(max_examples=60, deadline=None)
@given(labels=LABELS, fraction=st.floats(0.05, 0.5), seed=st.integers(0, 5))
def test_parts_are_disjoint_complete_and_stratified(labels, fraction, seed):
    target = classes(labels)
    (split,) = make_splits(target, ids=names(len(labels)), fraction=fraction, seeds=[seed])
    check_disjoint_and_complete(split, len(labels))
    counts = np.bincount(target.codes)
    of_part = {part: np.bincount(target.codes[at], minlength=len(counts)) for part, at in parts(split).items()}
    assert (of_part["train"] >= 2).all()
    assert (of_part["test"] >= 1).all()
    assert (of_part["val"] >= 1).all()
    # In proportion, up to rounding and the rows that training must keep.
    wanted = np.minimum(counts * fraction, counts - 3)
    assert (np.abs(of_part["test"] - wanted) <= 1).all()


@settings(max_examples=40, deadline=None)
@given(n=st.integers(4, 300), fraction=st.floats(0.05, 0.5), seed=st.integers(0, 5))
def test_numbers_are_split_in_proportion(n, fraction, seed):
    (split,) = make_splits(numbers(n), ids=names(n), fraction=fraction, seeds=[seed])
    check_disjoint_and_complete(split, n)
    assert abs(len(split.test) - n * fraction) <= 1 or n < 8
    assert len(split.train) >= 2


def test_sizes_of_a_plain_case():
    (split,) = make_splits(classes([0, 1] * 500), ids=names(1000))
    assert {part: len(at) for part, at in parts(split).items()} == {"train": 640, "val": 160, "test": 200}
    assert split.how == "20% test, stratified"
    assert split.warnings == ()
    assert make_splits(numbers(100), ids=names(100))[0].how == "20% test, at random"


@settings(max_examples=40, deadline=None)
@given(labels=LABELS, grouped=st.booleans(), data=st.data())
def test_the_order_of_the_file_changes_nothing(labels, grouped, data):
    n = len(labels)
    order = np.array(data.draw(st.permutations(range(n))))
    labels, ids = np.array(labels), names(n)
    writers = grouping(np.arange(n) % 9) if grouped else None
    shuffled_writers = Column("writer", writers.values[order]) if writers else None
    (first,) = make_splits(classes(labels, ids), ids=ids, groups=writers, seeds=[3])
    (again,) = make_splits(classes(labels[order], ids[order]), ids=ids[order], groups=shuffled_writers, seeds=[3])
    for part, at in parts(first).items():
        assert ids[at].tolist() == ids[order][parts(again)[part]].tolist()  # in the same order, too


def test_seeds_give_different_splits_and_the_same_seed_the_same():
    target, ids = classes([0, 1, 2] * 50), names(150)
    one, two = make_splits(target, ids=ids, seeds=[0, 1])
    assert set(one.test) != set(two.test)
    assert (one.seed, two.seed) == (0, 1)
    np.testing.assert_array_equal(make_splits(target, ids=ids, seeds=[1])[0].test, two.test)


def test_every_row_is_tested_about_equally_often():
    target, ids = classes([0, 1] * 25), names(50)
    counts = np.zeros(50)
    for split in make_splits(target, ids=ids, seeds=range(200)):
        counts[split.test] += 1
    assert counts.sum() == 200 * 10
    assert counts.min() > 20
    assert counts.max() < 62


# --- groups


@settings(max_examples=60, deadline=None)
@given(labels=LABELS, n_groups=st.integers(5, 30), seed=st.integers(0, 5), data=st.data())
def test_groups_never_cross(labels, n_groups, seed, data):
    n = len(labels)
    extra = data.draw(st.lists(st.integers(0, n_groups - 1), min_size=n, max_size=n))
    writers = grouping([*range(min(n_groups, n)), *extra][:n])
    if len(set(writers.values)) < 4:
        return
    try:
        (split,) = make_splits(classes(labels), ids=names(n), groups=writers, seeds=[seed])
    except InputError as error:  # only where all training groups hold one and the same class
        assert "at least two classes in the training part" in str(error)  # noqa: PT017
        return
    check_disjoint_and_complete(split, n)
    of = group_parts(split, writers)
    assert not of["train"] & of["test"]
    assert not of["train"] & of["val"]
    assert not of["val"] & of["test"]
    assert len(of["train"]) >= 2
    assert split.n_crossing == 0
    assert split.how == "20% test, grouped by writer"


def test_many_groups_come_out_in_proportion():
    rng = np.random.default_rng(0)
    writers = grouping(np.minimum(rng.geometric(0.01, 3000), 300))
    target = classes(rng.integers(0, 3, 3000))
    for split in make_splits(target, ids=names(3000), groups=writers, seeds=range(5)):
        assert 0.15 < len(split.test) / 3000 < 0.25
        shares = np.bincount(target.codes[split.test]) / np.bincount(target.codes)
        assert (np.abs(shares - 0.2) < 0.06).all()


def test_other_seeds_test_other_groups():
    writers = grouping(np.arange(400) // 40)
    tested = [
        frozenset(group_parts(split, writers)["test"])
        for split in make_splits(classes([0, 1] * 200), ids=names(400), groups=writers, seeds=range(20))
    ]
    assert len(set(tested)) > 5
    assert len(set().union(*tested)) == 10


def test_a_huge_group_does_not_end_up_in_the_test_part():
    writers = grouping([0] * 700 + [1 + i // 30 for i in range(300)])
    for split in make_splits(classes([0, 1] * 500), ids=names(1000), groups=writers, seeds=range(10)):
        assert "w0" in group_parts(split, writers)["train"]


@pytest.mark.parametrize("value", ["", None, float("nan")])
def test_a_row_without_a_group_is_an_error(value):
    values = np.array([f"w{i % 5}" for i in range(40)], dtype=object)
    values[[7, 9]] = value
    with pytest.raises(
        InputError, match=r"example row7, group column 'writer': every example must .* group \(and 1 more"
    ):
        make_splits(classes([0, 1] * 20), ids=names(40), groups=Column("writer", values))


def test_a_class_of_one_group_is_not_traded_for_an_even_number_of_rows():
    # The only group with class 1 is just what the test part lacks of class 0.
    labels = [0] * 1005 + [1]
    writers = grouping([i // 100 for i in range(1006)])
    (split,) = make_splits(classes(labels), ids=names(1006), groups=writers, fraction=0.207)
    assert 1005 in split.train


def test_a_test_part_has_its_share_of_groups_even_where_one_group_is_as_large_as_the_part():
    # Trap: filled up by rows, every fourth seed or so took the one large group alone.
    sizes = [400] + [16] * 100
    writers = np.repeat(np.arange(101), sizes)
    heights = read_target(np.arange(len(writers), dtype=float), "height", ids=range(len(writers)))
    for split in make_splits(heights, ids=names(len(writers)), groups=grouping(writers), seeds=range(10)):
        assert len(np.unique(writers[split.test])) == 20


def test_a_class_of_one_group_stays_in_training_where_it_can():
    labels = [0] * 30 + [1] * 2
    for writers in ([0] * 10 + [1] * 10 + [2] * 10 + [3] * 2, [0] * 8 + [1] * 8 + [2] * 7 + [3] * 9):
        for split in make_splits(classes(labels), ids=names(32), groups=grouping(writers), seeds=range(20)):
            assert {30, 31} <= set(split.train)


# --- the input's own split


def official(*counts: int) -> Column:
    values = [part for part, count in zip(("Train", "dev", "test"), counts, strict=True) for _ in range(count)]
    return Column("split", np.array(values, dtype=object))


def test_an_official_split_is_honoured_whatever_the_seed():
    target = classes([0, 1] * 50)
    for split in make_splits(target, ids=names(100), split=official(60, 15, 25), seeds=[0, 1], fraction=0.4):
        assert sorted(split.train) == list(range(60))
        assert sorted(split.val) == list(range(60, 75))
        assert sorted(split.test) == list(range(75, 100))
        assert split.how == "column 'split'"
        assert split.train.tolist() != sorted(split.train)  # not in the order of the file


@pytest.mark.parametrize(("counts", "missing"), [((80, 0, 20), "val"), ((80, 20, 0), "test"), ((100, 0, 0), "both")])
def test_a_missing_part_is_carved_from_the_training_rows(counts, missing):
    target = classes([0, 1] * 50)
    (split,) = make_splits(target, ids=names(100), split=official(*counts))
    check_disjoint_and_complete(split, 100)
    own = counts[0]
    if missing in ("val", "both"):
        assert (split.val < own).all()
        assert "validation" in split.how
    if missing in ("test", "both"):
        assert (split.test < own).all()
    assert (split.train < own).all()
    assert len(split.train) == {"val": 64, "test": 64, "both": 64}[missing]
    assert "taken from train (20%, stratified)" in split.how


def test_carving_from_an_official_split_keeps_groups_together():
    writers = grouping(np.arange(100) // 5)
    (split,) = make_splits(classes([0, 1] * 50), ids=names(100), split=official(80, 0, 20), groups=writers)
    of = group_parts(split, writers)
    assert not of["train"] & of["val"]
    assert split.n_crossing == 0
    assert "grouped by writer" in split.how


def test_a_rare_class_in_an_official_split_is_no_error():
    labels = [0] * 40 + [1] * 39 + [2] + [0, 1] * 10
    (split,) = make_splits(classes(labels), ids=names(100), split=official(80, 0, 20))
    assert 79 in split.train


def test_a_class_without_training_rows_is_warned_about():
    labels = [0, 1] * 40 + [2] * 20
    (split,) = make_splits(classes(labels), ids=names(100), split=official(60, 20, 20))
    assert split.warnings == (
        "no training rows for 1 classes of the test part: 2",
        "no test rows for 2 classes of the training part: 0, 1",
    )


def test_crossing_groups_are_counted_and_called_a_leak():
    writers = grouping([0] * 30 + [1] * 30 + [1] * 10 + [2] * 10 + [0] * 10 + [3] * 10)
    (split,) = make_splits(classes([0, 1] * 50), ids=names(100), split=official(60, 20, 20), groups=writers)
    assert split.n_crossing == 2
    assert split.warnings[0].startswith("LEAK: 2 groups of 'writer' have rows in more than one part")


@pytest.mark.skipif(not EMOBANK.exists(), reason="EmoBank is not beside this checkout")
def test_emobank_s_official_split_leaks_documents():
    table = pd.read_csv(EMOBANK, keep_default_na=False)
    document = table["id"].str.replace(r"_\d+_\d+$", "", regex=True)
    # Independently: how many documents have rows in several parts?
    expected = int((table.groupby(document)["split"].nunique() > 1).sum())
    assert expected > 100
    target = read_target(table["V"].to_numpy(), "V", ids=table["id"].to_numpy())
    options = {"ids": table["id"].to_numpy(), "texts": table["text"].tolist()}
    writers = Column("document", document.to_numpy(dtype=object))
    column = Column("split", table["split"].to_numpy(dtype=object))
    (split,) = make_splits(target, groups=writers, split=column, **options)
    assert split.n_crossing == expected
    assert split.warnings[0].startswith(f"LEAK: {expected} groups of 'document'")
    assert len(split.test) == (table["split"] == "test").sum()
    known = set(table["text"][table["split"] != "test"])
    assert split.n_duplicate == table["text"][table["split"] == "test"].isin(known).sum() > 0
    # Split by fraction instead, the leak is gone.
    (split,) = make_splits(target, groups=writers, **options)
    assert split.n_crossing == 0
    of = group_parts(split, writers)
    assert not of["train"] & of["test"]
    assert not (of["train"] | of["test"]) & of["val"]
    assert not any(warning.startswith("LEAK") for warning in split.warnings)


# --- duplicates


def test_duplicates_across_parts_are_counted():
    texts = ["same"] * 50 + [f"text {i}" for i in range(50)]
    (split,) = make_splits(classes([0, 1] * 50), ids=names(100), texts=texts, split=official(40, 20, 40))
    assert split.n_duplicate == 0
    texts[60:70] = ["same"] * 10  # test rows equal to training rows
    texts[70:75] = ["text 5 "] * 5  # equal only to each other
    texts[59] = texts[75] = "in val and test"
    (split,) = make_splits(classes([0, 1] * 50), ids=names(100), texts=texts, split=official(40, 20, 40))
    assert split.n_duplicate == 11
    assert split.warnings == ("11 of 40 test texts also occur in train or validation",)


# --- what can't be split


@pytest.mark.parametrize("fraction", [0, -0.1, 0.51, 1, float("nan")])
def test_a_fraction_out_of_range(fraction):
    with pytest.raises(SpecError, match=r"above 0 and at most 0\.5"):
        make_splits(classes([0, 1] * 10), ids=names(20), fraction=fraction)


@pytest.mark.parametrize("seeds", [[], [1, 1]])
def test_bad_seeds(seeds):
    with pytest.raises(SpecError, match="--seeds"):
        make_splits(classes([0, 1] * 10), ids=names(20), seeds=seeds)


def test_a_class_too_small_is_named():
    with pytest.raises(
        InputError, match=r"at least 4 rows of each class, to split it \(--drop-rare 4 .*\); got 2 \(3\)"
    ):
        make_splits(classes([0] * 9 + [1] * 9 + [2] * 3), ids=names(21))
    make_splits(classes([0] * 9 + [1] * 9 + [2] * 4), ids=names(22), fraction=0.5)


def test_too_few_groups_or_rows():
    with pytest.raises(InputError, match=r"group column 'writer': at least 4 groups; got 3"):
        make_splits(classes([0, 1] * 10), ids=names(20), groups=grouping(np.arange(20) % 3))
    with pytest.raises(InputError, match=r"column 'score': at least 4 rows; got 3"):
        make_splits(numbers(3), ids=names(3))
    with pytest.raises(InputError, match=r"at least two classes among the training rows of 'split'; got 1"):
        make_splits(classes([0] * 10 + [1] * 10), ids=names(20), split=official(10, 5, 5))


def test_columns_must_fit_together():
    target, ids = classes([0, 1] * 10), names(20)
    for options, message in (
        ({"ids": ids[:19]}, "ids: one value for each of the 20 rows; got 19"),
        ({"ids": ids, "texts": ["a"]}, "texts: .*got 1"),
        ({"ids": ids, "groups": grouping([1, 2])}, "group column 'writer': .*got 2"),
        ({"ids": ids, "split": official(9, 1, 1)}, "split column 'split': .*got 11"),
        ({"ids": np.array([*ids[:19], "row0"])}, "ids: row names must be unique"),
    ):
        with pytest.raises(InputError, match=message):
            make_splits(target, **options)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["train", "tset", ""], r"split column 'part': values are train.*; got '', 'tset'"),
        (["test", "dev"], r"some rows must be 'train'; got dev, test"),
        ([f"fold{i}" for i in range(9)], r"got 'fold0', 'fold1', 'fold2', 'fold3', 'fold4', …"),
    ],
)
def test_bad_split_columns(values, message):
    with pytest.raises(InputError, match=message):
        read_parts(values, "part")


def test_splits_are_values():
    assert isinstance(make_splits(numbers(9), ids=names(9))[0], Split)
