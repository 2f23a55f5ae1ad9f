"""Labels become classes or numbers; what is missing or can't be read is named."""

from __future__ import annotations

import numpy as np
import pytest

from probekit.errors import InputError, SpecError
from probekit.tasks.read import guess_task, read_target
from tests.splits.split_cases import names


def read(values, **options):
    return read_target(values, "y", ids=names(len(values)), **options)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["a", "b"], "classification"),
        (np.array(["1", "2"], dtype=object), "classification"),
        ([True, False], "classification"),
        ([0, 1, 1, 0], "classification"),
        ([1, 2, 3, 4, 5] * 3, "classification"),
        ([3, 1, 2], "regression"),  # each value once: a number
        (list(range(1900, 2000)) * 5, "regression"),  # years
        (list(range(77)) * 10, "classification"),  # codes 0..76
        (list(range(77)) * 9, "regression"),
        ([*range(76), 80] * 10, "regression"),  # a gap
        ([0.0, 1.0] * 10, "regression"),
        (np.array([1, 2] * 9, dtype=np.uint8), "classification"),
    ],
)
def test_guesses(values, kind):
    found = guess_task(values)
    assert found.task.name == kind
    assert found.how.startswith("guessed from")


@pytest.mark.parametrize("values", [np.array(["2020-01-01"], dtype="M8[D]"), np.array([[1], [2]], dtype=object)[:, 0]])
def test_other_types_are_refused(values):
    with pytest.raises(InputError, match="labels are text, true/false or numbers"):
        guess_task(values)


def test_no_rows():
    with pytest.raises(InputError, match="at least one row"):
        guess_task(np.empty(0, dtype=np.int64))
    with pytest.raises(InputError, match="at least one row"):
        read([])


def test_codes_and_classes():
    target = read(np.array(["no", "yes", "maybe", "no"], dtype=object))
    assert target.classes.tolist() == ["maybe", "no", "yes"]
    assert target.codes.tolist() == [1, 2, 0, 1]
    assert target.codes.dtype == np.int64
    assert target.y.tolist() == ["no", "yes", "maybe", "no"]
    np.testing.assert_array_equal(target.truth, target.codes)
    assert (target.task.stratified, len(target)) == (True, 4)


def test_numbers():
    target = read([1, 2, 30], task="regression")
    assert target.y.dtype == np.float64
    assert not target.task.stratified
    np.testing.assert_array_equal(target.truth, [1, 2, 30])
    assert (len(target.classes), len(target.codes)) == (0, 0)
    assert target.how == "as asked"


def test_whole_numbers_with_a_decimal_type_can_be_classes():
    target = read([3.0, 1.0, 3.0], task="classification")
    assert target.classes.tolist() == [1, 3]
    assert target.y.dtype == np.int64


@pytest.mark.parametrize(
    ("values", "task", "message"),
    [
        ([1.5, 2.0], "classification", "text or whole numbers; got decimal numbers"),
        ([np.inf, 2.0], "classification", "text or whole numbers"),
        ([1e300, 2.0], "classification", "text or whole numbers"),
        (["a", "b"], "regression", "--task regression needs numbers"),
        ([1.0, np.inf], "regression", "must be finite"),
        ([2.0, 2.0], "auto", "at least two different values to tell apart; got only 2"),
        (["a", "a"], "auto", "at least two classes to tell apart; got only a"),
    ],
)
def test_labels_the_task_can_not_use(values, task, message):
    with pytest.raises(InputError, match=message):
        read(values, task=task)


def test_misuse():
    with pytest.raises(SpecError, match="--task ranking: one of auto, classification, regression"):
        read(["a", "b"], task="ranking")
    with pytest.raises(InputError, match="one label for each of the 3 rows"):
        read_target([1, 2], "y", ids=names(3))
    with pytest.raises(InputError, match="one label for each"):
        read_target([[1], [2]], "y", ids=names(2))


@pytest.mark.parametrize("values", [[3, 1, 3, 1], [True, False, True, False], ["a", "b", "b", "a"]])
def test_labels_of_codes_keep_their_type(values):
    target = read_target(values, "y", ids=range(4))
    labels = target.labels(target.codes)
    assert labels.dtype.kind == np.asarray(values).dtype.kind
    assert labels.tolist() == values
