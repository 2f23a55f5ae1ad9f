"""Equal fingerprints must mean equal caches."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.errors import SpecError
from probekit.store import columns_digest, fingerprint, text_digest
from probekit.store.existing import first_difference

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
SPECS = st.dictionaries(st.text(max_size=5), VALUES, min_size=1, max_size=6)


@settings(max_examples=100, deadline=None)
@given(spec=SPECS, value=VALUES, data=st.data())
def test_any_changed_field_changes_it_and_is_named(spec, value, data):
    field = data.draw(st.sampled_from(sorted(spec)))
    changed = spec | {field: value}
    same = json.dumps(spec[field], sort_keys=True) == json.dumps(value, sort_keys=True)
    assert (fingerprint(changed) == fingerprint(spec)) == same
    if not same:
        assert first_difference(spec, changed)[0].startswith(field)
    without = {key: kept for key, kept in spec.items() if key != field}
    assert fingerprint(without) != fingerprint(spec)
    assert first_difference(spec, without)[0] == first_difference(without, spec)[0] == field


@settings(max_examples=50, deadline=None)
@given(spec=SPECS, data=st.data())
def test_the_order_of_fields_does_not_matter(spec, data):
    shuffled = dict(data.draw(st.permutations(sorted(spec.items(), key=lambda item: item[0]))))
    assert fingerprint(shuffled) == fingerprint(spec) == fingerprint(json.loads(json.dumps(spec)))


def test_a_tuple_and_a_list_are_the_same_to_json_and_not_named():
    there = {"pool": {"layers": [0, 1]}, "revision": "a"}
    here = {"pool": {"layers": (0, 1)}, "revision": "b"}
    assert first_difference(there, here) == ("revision", "'a'", "'b'")


def test_known_value():
    import hashlib

    assert fingerprint({"b": [1, None], "a": "é"}) == hashlib.sha256(b'{"a":"\\u00e9","b":[1,null]}').hexdigest()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.int64(3), {1, 2}])
def test_what_json_cannot_say_is_refused(value):
    with pytest.raises(SpecError, match="plain JSON"):
        fingerprint({"a": value})


@settings(max_examples=100, deadline=None)
@given(a=st.lists(st.text(max_size=4), max_size=4), b=st.lists(st.text(max_size=4), max_size=4))
def test_text_digest_tells_lists_apart(a, b):
    assert (text_digest(a) == text_digest(b)) == (a == b)


def test_columns_digest_sees_every_edit():
    ids = np.array(["a", "b"], dtype=object)
    columns = {"label": np.array([0, 1]), "group": np.array(["x", "yz"], dtype=object)}
    edits = [
        (columns | {"label": np.array([1, 1])}, ids),
        (columns | {"label": np.array([0.0, 1.0])}, ids),
        (columns | {"label": np.array(["0", "1"], dtype=object)}, ids),
        (columns | {"group": np.array(["xy", "z"], dtype=object)}, ids),
        ({"label": columns["label"]}, ids),
        ({"labels": columns["label"], "group": columns["group"]}, ids),
        (columns, np.array(["a", "c"], dtype=object)),
        (columns, ids[::-1]),
    ]
    digests = {columns_digest(*edit) for edit in edits} | {columns_digest(columns, ids)}
    assert len(digests) == len(edits) + 1
    assert columns_digest(dict(columns), list(ids)) == columns_digest(columns, ids)
