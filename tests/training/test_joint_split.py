"""One division for several targets: what one learns from, none is validated or tested on."""

from __future__ import annotations

import numpy as np
import pytest

from probekit.errors import InputError
from probekit.evaluate.plan import ProbeOptions, prepare
from probekit.evaluate.run import plan_fits
from probekit.splits import Column, joint_splits, labelled_part, make_splits
from probekit.tasks import TASKS, Target
from probekit.tasks.read import read_target
from probekit.tasks.target import Words
from probekit.training.plan import plan_training
from tests.training.trained import one_line, options_of

N = 240
IDS = np.array([f"row{i}" for i in range(N)], dtype=object)


def target(name, values):
    return read_target(np.array(values, dtype=object), name, ids=IDS[: len(values)])


def classes(name, *, there, k=3, seed=0):
    values = np.random.default_rng(seed).integers(0, k, N)
    return target(name, ["abcdefgh"[v] if has else None for v, has in zip(values, there, strict=True)])


def numbers(name, *, there, seed=0):
    values = np.random.default_rng(seed).standard_normal(N)
    return read_target(np.where(there, values, np.nan), name, ids=IDS)


EVERY, FIRST, LAST = np.ones(N, bool), np.arange(N) < 120, np.arange(N) >= 120
SOME = np.random.default_rng(5).random(N) < 0.5
CASES = {
    "two classes": [classes("a", there=EVERY), classes("b", there=EVERY, seed=1)],
    "two data sets joined": [classes("a", there=FIRST), classes("b", there=LAST, seed=1)],
    "half of the labels missing": [classes("a", there=EVERY), classes("b", there=SOME, seed=1)],
    "classes and numbers": [classes("a", there=SOME), numbers("x", there=~SOME | FIRST)],
    "numbers first": [numbers("x", there=FIRST), classes("a", there=EVERY)],
    "numbers alone": [numbers("x", there=FIRST), numbers("y", there=LAST, seed=1), numbers("z", there=SOME, seed=2)],
    "many classes, most combinations rare": [classes("a", there=EVERY, k=8), classes("b", there=SOME, k=8, seed=1)],
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("grouped", [False, True])
def test_no_row_that_a_target_learns_from_is_validated_or_tested_on_for_another(case, grouped):
    targets = CASES[case]
    groups = Column("doc", np.array([f"g{i // 6}" for i in range(N)], dtype=object)) if grouped else None
    for split in joint_splits(targets, ids=IDS, groups=groups, seeds=(0, 1, 2)):
        parts = [labelled_part(split, one) for one in targets]
        learnt = set().union(*(part.train.tolist() for part in parts))
        for one, part in zip(targets, parts, strict=True):
            assert not learnt & {*part.val.tolist(), *part.test.tolist()}
            assert not {*part.val.tolist()} & set().union(*(other.test.tolist() for other in parts))
            units = np.concatenate([part.train, part.val, part.test])
            assert sorted(units) == one.units.tolist(), "every row with a label is somewhere, once"
        if groups is not None:
            of = [
                {*groups.values[np.concatenate([getattr(p, name) for p in parts])]} for name in ("train", "val", "test")
            ]
            assert len(set().union(*of)) == sum(map(len, of))


@pytest.mark.parametrize("case", ["two classes", "two data sets joined", "half of the labels missing"])
def test_each_class_of_each_target_is_in_every_part_in_proportion(case):
    targets = CASES[case]
    for split in joint_splits(targets, ids=IDS, seeds=(0, 1)):
        for one in targets:
            part, whole = labelled_part(split, one), np.bincount(one.codes[one.units])
            for rows, share in ((part.train, 0.64), (part.val, 0.16), (part.test, 0.2)):
                found = np.bincount(one.codes[rows], minlength=len(whole))
                assert np.abs(found - share * whole).max() <= 4


@pytest.mark.parametrize("how", [{}, {"fraction": 0.3}, {"groups": True}, {"split": True}])
def test_a_single_target_is_divided_as_ever(how):
    one = classes("a", there=SOME)
    how = dict(how)
    if how.get("groups"):
        how["groups"] = Column("doc", np.array([f"g{i // 3}" for i in range(N)], dtype=object))
    if how.get("split"):
        how["split"] = Column("split", np.array(["train", "train", "dev", "test"] * (N // 4), dtype=object))
    for mine, theirs in zip(
        joint_splits([one], ids=IDS, seeds=(0, 1), **how), make_splits(one, ids=IDS, seeds=(0, 1), **how), strict=True
    ):
        for name in ("train", "val", "test"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))


def test_the_same_labels_twice_are_divided_as_once():
    one, again = classes("a", there=SOME), classes("b", there=SOME)
    (joint,), (alone,) = joint_splits([one, again], ids=IDS), make_splits(one, ids=IDS)
    for name in ("train", "val", "test"):
        np.testing.assert_array_equal(getattr(joint, name), getattr(alone, name))


def test_the_order_of_rows_does_not_matter():
    targets = CASES["half of the labels missing"]
    (split,) = joint_splits(targets, ids=IDS)
    order = np.random.default_rng(3).permutation(N)
    mixed = [
        read_target(
            np.array([one.classes[c] if c >= 0 else None for c in one.codes], dtype=object)[order],
            one.name,
            ids=IDS[order],
        )
        for one in targets
    ]
    (other,) = joint_splits(mixed, ids=IDS[order])
    for name in ("train", "val", "test"):
        assert {*IDS[getattr(split, name)]} == {*IDS[order][getattr(other, name)]}


def test_an_official_split_is_kept_and_what_it_lacks_is_taken_from_training_rows():
    targets = CASES["two data sets joined"]
    column = np.array([("train", "train", "train", "test")[i % 4] for i in range(N)], dtype=object)
    (split,) = joint_splits(targets, ids=IDS, split=Column("split", column))
    assert sorted(split.test) == np.flatnonzero(column == "test").tolist()
    assert {*column[split.train]} == {*column[split.val]} == {"train"}
    column = np.array([("train", "train", "dev", "test")[i % 4] for i in range(N)], dtype=object)
    (split,) = joint_splits(targets, ids=IDS, split=Column("split", column))
    for part, name in (("train", "train"), ("val", "dev"), ("test", "test")):
        assert sorted(getattr(split, part)) == np.flatnonzero(column == name).tolist()


def test_a_part_without_a_label_of_a_target_is_refused():
    column = np.array(["train" if i < 150 else "dev" if i < 200 else "test" for i in range(N)], dtype=object)
    a, b = classes("a", there=np.arange(N) < 180), classes("b", there=EVERY)
    (split,) = joint_splits([a, b], ids=IDS, split=Column("split", column))
    labelled_part(split, b)
    with pytest.raises(InputError, match="column 'a': some rows with a label in the test part; got none") as error:
        labelled_part(split, a)
    assert one_line(error)


def test_a_class_that_is_alone_in_the_training_part_is_refused():
    column = np.array([("train", "dev", "test")[i % 3] for i in range(N)], dtype=object)
    a = target("a", ["x" if i % 3 == 0 or i % 2 else "y" for i in range(N)])
    b = classes("b", there=EVERY)
    (split,) = joint_splits([a, b], ids=IDS, split=Column("split", column))
    with pytest.raises(InputError, match="at least two classes in the training part"):
        labelled_part(split, a)


# As training divides


@pytest.mark.parametrize("options", [{}, {"split": 0.3}, {"group": "doc", "split": 0.25}, {"seeds": 2, "split": 0.2}])
def test_training_one_target_divides_as_probe_does(given, options):
    """By the scores of the same probe, and by the sentence that says how."""
    plan = plan_training(given.cache, options_of(["kind"], layer=1, **options), name="c")
    theirs = prepare(given.cache, ["kind"], ProbeOptions(layers=[1], **options), name="c")
    for mine, other in zip(
        plan_fits(plan.candidates[0].target, plan.config), plan_fits(theirs.targets[0], theirs.config), strict=True
    ):
        assert mine.split.how == other.split.how
        for name in ("train", "val", "test"):
            np.testing.assert_array_equal(getattr(mine.split, name), getattr(other.split, name))


def test_training_two_data_sets_joined_learns_from_no_row_that_it_is_scored_on(halves):
    plan = plan_training(halves.cache, options_of(["label", "kind", "score"], layer=1, split=0.2, seeds=2), name="c")
    for seed in (0, 1):
        fits = [plan_fits(one.target, plan.config)[seed] for one in plan.candidates]
        learnt = set().union(*(fit.train.tolist() for fit in fits))
        for fit in fits:
            assert not learnt & {*fit.split.val.tolist(), *fit.split.test.tolist()}
            has = [str(value) not in ("", "nan", "None") for value in halves.cache.column(fit.target.name).tolist()]
            assert np.array(has)[np.concatenate([fit.train, fit.split.val, fit.split.test])].all()
        assert {*fits[0].train.tolist()} != {*fits[1].train.tolist()}


def test_tags_and_classes_of_the_same_sentences_share_a_division():
    lengths = np.arange(N) % 5 + 1
    total = int(lengths.sum())
    codes = np.random.default_rng(0).integers(0, 2, total)
    names = np.array(["N", "V"])
    words = Words(lengths, np.array(["w"] * total, dtype=object), np.zeros(total, dtype=bool))
    tags = Target("tag", TASKS["tags"], names[codes], names, codes, words=words)
    for targets in ([tags, classes("a", there=SOME)], [classes("a", there=SOME), tags]):
        (split,) = joint_splits(targets, ids=IDS)
        parts = [labelled_part(split, one) for one in targets]
        learnt = set().union(*(part.train.tolist() for part in parts))
        for part in parts:
            assert not learnt & {*part.val.tolist(), *part.test.tolist()}
        assert sorted(np.concatenate([split.train, split.val, split.test])) == list(range(N))
