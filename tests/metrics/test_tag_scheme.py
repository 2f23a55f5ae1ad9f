"""Every scheme is recognised and says the same entities in IOB2."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from probekit.errors import InputError
from probekit.metrics.tag_scheme import looks_like_entities, name_types, scheme_of, to_iob2

SCHEMES = ("IOB1", "IOB2", "BIOES", "BILOU")
FIRST_LAST_ONLY = {"BIOES": ("B", "E", "S"), "BILOU": ("B", "L", "U")}

# Pieces of a sentence: (type or "" for words outside, number of words).
pieces = st.lists(st.tuples(st.sampled_from(["", "PER", "LOC", "a-b"]), st.integers(1, 4)), max_size=8)


def written(sentence, scheme):
    """The tags of the pieces, by the schemes' definitions and not by ours."""
    tags, before = [], ""
    for kind, n in sentence:
        if kind == "":
            tags += ["O"] * n
        elif scheme in FIRST_LAST_ONLY:
            first, last, only = FIRST_LAST_ONLY[scheme]
            letters = only if n == 1 else first + "I" * (n - 2) + last
            tags += [f"{letter}-{kind}" for letter in letters]
        else:
            first = "B" if scheme == "IOB2" or before == kind else "I"
            tags += [f"{letter}-{kind}" for letter in first + "I" * (n - 1)]
        before = kind
    return tags


def spans(sentence):
    found, start = [], 0
    for kind, n in sentence:
        if kind:
            found.append((kind, start, start + n - 1))
        start += n
    return found


@pytest.mark.parametrize("scheme", SCHEMES)
@given(st.lists(pieces, min_size=1, max_size=4))
def test_written_recognised_converted_and_read_again(scheme, sentences):
    tagged = [written(sentence, scheme) for sentence in sentences]
    found = scheme_of(tagged)
    assert found == (scheme if any(map(spans, sentences)) else "IOB2")
    converted = [to_iob2(tags, found) for tags in tagged]
    assert converted == [written(sentence, "IOB2") for sentence in sentences]
    assert [get_entities(tags) for tags in converted] == [spans(sentence) for sentence in sentences]
    assert [to_iob2(tags, "IOB2") for tags in converted] == converted


@pytest.mark.parametrize(
    ("sentences", "scheme"),
    [
        ([["I-X", "B-X"]], "IOB1"),
        ([["I-X", "B-Y"]], "IOB2"),  # no B- is needed before another type
        ([["I-X", "B-X"], ["O", "B-X"]], "IOB2"),  # some of each: with mistakes
        ([["B-X", "I-Y"]], "IOB2"),
        ([["I-X"], ["B-X"]], "IOB2"),  # a sentence's first word comes after no word
        ([["I-X", "I-Y"]], "IOB1"),
        ([["B-X", "B-X", "I-X"]], "IOB2"),
        ([["O"], ["B-X"], ["B-X", "M-X", "E-X"]], "BIOES"),
        ([["S-X"]], "BIOES"),
        ([["B-X", "M-X"]], "BIOES"),
        ([["U-X"]], "BILOU"),
        ([["B-X", "L-X"]], "BILOU"),
        ([["O", "O"], []], "IOB2"),
        ([], "IOB2"),
    ],
)
def test_recognised_by_hand(sentences, scheme):
    assert scheme_of(sentences) == scheme


@pytest.mark.parametrize(
    ("tags", "scheme", "expected"),
    [
        (["I-X", "I-X"], "IOB2", ["B-X", "I-X"]),
        (["O", "I-X", "B-X"], "IOB2", ["O", "B-X", "B-X"]),
        (["B-X", "I-Y", "I-Y"], "IOB2", ["B-X", "B-Y", "I-Y"]),
        (["B-X", "O", "I-X"], "IOB2", ["B-X", "O", "B-X"]),
        (["B-X", "E-X", "I-X"], "BIOES", ["B-X", "I-X", "B-X"]),
        (["S-X", "E-X", "E-X"], "BIOES", ["B-X", "B-X", "B-X"]),
        (["B-X", "M-X", "E-X", "S-X"], "BIOES", ["B-X", "I-X", "I-X", "B-X"]),
        (["L-X", "L-X", "U-X", "I-X"], "BILOU", ["B-X", "B-X", "B-X", "B-X"]),
    ],
)
def test_ill_formed_tags_are_repaired(tags, scheme, expected):
    assert to_iob2(tags, scheme) == expected


@pytest.mark.parametrize(("scheme", "letters"), [("IOB1", "BI"), ("IOB2", "BI"), ("BIOES", "BIES"), ("BILOU", "BILU")])
@given(data=st.data())
def test_any_tags_are_read_as_seqeval_reads_them_by_default(scheme, letters, data):
    some_tag = st.sampled_from(["O"] + [f"{letter}-{kind}" for letter in letters for kind in "XY"])
    tags = data.draw(st.lists(some_tag, max_size=10))
    seqevals = [tag if tag == "O" else tag[0].translate(str.maketrans("LU", "ES")) + tag[1:] for tag in tags]
    assert get_entities(to_iob2(tags, scheme)) == get_entities(seqevals)


@pytest.mark.parametrize(
    ("tags", "answer"),
    [
        (["O", "B-X", "I-X"], True),
        (["S-X", "L-X", "U-X", "M-X", "E-X"], True),
        (["B-some-thing"], True),
        (["O", "O"], False),
        ([], False),
        (["NOUN", "VERB"], False),
        (["O", "B-X", "X"], False),
        (["O", "B-X", ""], False),
        (["B-"], False),
        (["B"], False),
        (["X-B"], False),
        (["b-X"], False),
        (["B-X", "B-X-"], False),
        (["B--X"], False),
    ],
)
def test_what_looks_like_entities(tags, answer):
    assert looks_like_entities(tags) is answer
    assert looks_like_entities(iter(tags)) is answer


@pytest.mark.parametrize(
    ("tag", "scheme"),
    [("E-X", "IOB2"), ("E-X", "BILOU"), ("U-X", "BIOES"), ("S-X", "IOB1"), ("X", "IOB2"), ("", "IOB2")],
)
def test_a_tag_that_the_scheme_does_not_have(tag, scheme):
    with pytest.raises(InputError, match=rf"tags: a tag in {scheme} is one of O, B-<type>, I-<type>.*; got '{tag}'"):
        to_iob2(["O", tag], scheme)


@pytest.mark.parametrize(
    ("tags", "answer"),
    [
        (["O", "B", "I"], True),
        (["O", "I"], True),
        (["O", "B"], True),
        (["O", "B", "M", "E", "S"], True),
        (["B", "M", "E", "S"], False),  # words, not entities among others
        (["O", "S"], False),  # objects and subjects
        (["O", "B", "I-PER"], False),
        (["O", "B", "X"], False),
        (["O", "b", "i"], False),
    ],
)
def test_bare_letters(tags, answer):
    assert looks_like_entities(tags) is answer


def test_bare_letters_are_entities_of_one_type():
    sentences = [["B", "I", "O", "B", "B"], ["O", "I", "I"]]
    named = [name_types(tags) for tags in sentences]
    assert scheme_of(named) == "IOB2"
    assert [to_iob2(tags, "IOB2") for tags in named] == [
        ["B-entity", "I-entity", "O", "B-entity", "B-entity"],
        ["O", "B-entity", "I-entity"],
    ]
    assert name_types(["B-PER", "O"]) == ["B-PER", "O"]
