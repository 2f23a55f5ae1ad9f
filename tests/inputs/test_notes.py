"""Blanks, and what is said of columns that can't be kept or may be meant otherwise."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from probekit.inputs.read import read_examples
from tests.inputs.cases import error_of, write


def jsonl(folder, *rows, name="a.jsonl"):
    return write(folder, name, "\n".join(map(json.dumps, rows)))


@pytest.mark.parametrize("blank", [" ", "\u00a0", "\u3000", "\ufeff", "\u200b"])
def test_header_names_have_no_outer_blanks(tmp_path, blank):
    names = f"{blank}text", f"label{blank}"
    paths = [
        write(tmp_path, "a.csv", ",".join(names) + "\na,x\n"),
        write(tmp_path, "a.tsv", "\t".join(names) + "\na\tx\n"),
        jsonl(tmp_path, dict(zip(names, "ax", strict=True))),
        tmp_path / "a.parquet",
    ]
    pq.write_table(pa.table({names[0]: ["a"], names[1]: ["x"]}), paths[-1])
    for path in paths:
        examples = read_examples([path])
        assert (examples.text_column, {**examples.columns}["label"].tolist()) == ("text", ["x"])
        assert read_examples([path], text=names[1]).texts == ["x"]


def test_header_names_that_clash_without_blanks(tmp_path):
    message = "every column must have a name of its own; got 'y' and 'y ', one but for outer blanks"
    assert error_of(write(tmp_path, "a.csv", "text,y,y \na,1,2\n")) == f"InputError: a.csv, line 1: {message}"
    assert error_of(jsonl(tmp_path, {"text": "a", "y": 1}, {"text": "b", "y ": 2})) == f"InputError: a.jsonl: {message}"


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_blanks_around_labels_make_no_other_class(tmp_path, name):
    separator = "," if name.endswith("csv") else "\t"
    rows = ["text,label,other", "a ,pos,x ", " b,pos ,y", "c,neg\u00a0,x ", "d,neg,z", "e, ,"]
    examples = read_examples([write(tmp_path, name, "\n".join(rows).replace(",", separator))])
    assert examples.texts == ["a ", " b", "c", "d", "e"]
    assert examples.columns["label"].tolist() == ["pos", "pos", "neg", "neg", ""]
    assert examples.columns["other"].tolist() == ["x ", "y", "x ", "z", ""]
    assert examples.notes == ("column 'label': blanks around '', 'neg', 'pos' don't count",)


def test_blanks_are_kept_where_types_are(tmp_path):
    path = jsonl(tmp_path, {"text": "a", "label": "pos"}, {"text": "b", "label": "pos "})
    assert read_examples([path]).columns["label"].tolist() == ["pos", "pos "]


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ([["a"], [None, "b"]], "row 2 has a list with an empty (null) item"),
        ([["a"], [["b"]]], "row 2 has a list with lists or objects in it"),
        ([["a"], {"b": 1}], "row 2 has an object"),
        ([{"b": 1}, None], "row 1 has an object"),
        (["a", ["b"]], "row 1 has a single value, where others have lists"),
        ([["a"], [1]], "row 2 has a list with items of another kind"),
        ([["a", True], []], "row 1 has a list with items of another kind"),
    ],
)
def test_columns_that_are_left_out_are_named(tmp_path, cells, reason):
    path = jsonl(tmp_path, *({"text": "t", "y": cell} for cell in cells))
    assert read_examples([path]).notes == (f"column 'y' is left out: {reason}",)
    good = jsonl(tmp_path, {"text": "t", "y": None}, name="train.jsonl")
    assert read_examples([good, path]).notes[-1] == f"column 'y' is left out: a.jsonl, {reason}"


def test_parquet_columns_that_are_left_out_are_named(tmp_path):
    table = pa.table({"text": ["a", "b"], "tags": [["x"], [None]], "raw": [b"a", b"b"], "deep": [[["x"]], []]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert read_examples([tmp_path / "a.parquet"]).notes == (
        "column 'tags' is left out: row 2 has a list with an empty (null) item",
        "column 'raw' is left out: it holds binary",
        "column 'deep' is left out: it holds list<element: list<element: string>>",
    )


def test_words_beside_a_text(tmp_path):
    rows = [
        {"text": "New York", "tokens": ["New", "York"], "ner_tags": ["B", "I"], "topics": ["a"]},
        {"text": "ok", "tokens": ["ok"], "ner_tags": ["O"], "topics": []},
    ]
    path = jsonl(tmp_path, *rows)
    assert read_examples([path]).notes == (
        "column 'tokens' has words: with --text tokens in place of text, 'ner_tags' can be probed",
    )
    assert read_examples([path], text="tokens").notes == ()


@pytest.mark.parametrize(
    ("cells", "commas"),
    [
        (["0,5", "1,25"], True),
        (["0,5", "", "2"], True),
        (["-1.234,56", "7,0"], True),
        (["1,000", "2,500"], True),
        (["0,5", "x"], False),
        (["1,2,3", "4,5"], False),
        (["5", "6"], False),
        (["a, b", "c"], False),
        (["", ""], False),
    ],
)
def test_decimal_commas_are_named(tmp_path, cells, commas):
    path = write(tmp_path, "a.csv", "text,y\n" + "".join(f'row,"{cell}"\n' for cell in cells))
    examples = read_examples([path])
    note = f"column 'y' is read as text: numbers have a point, not a comma as in {cells[0]!r}"
    assert examples.notes == ((note,) if commas else ())


@pytest.mark.parametrize(
    ("content", "tags"),
    [
        ("a\tO\t\nb\tX\n", [["O", "X"]]),
        ("a\tO\nb\tX\t\n", [["O", "X"]]),
        ("a\tO \nb\tX\t \n", [["O", "X"]]),
        ("a O\nb X\t\n", [["O", "X"]]),
        ("a O\t\nb X  \n", [["O", "X"]]),
        ("a\t\nb\tX\n", [["", "X"]]),
    ],
)
def test_blanks_at_the_end_of_a_conll_line(tmp_path, content, tags):
    examples = read_examples([write(tmp_path, "a.conll", content)])
    assert examples.words == [["a", "b"]]
    assert [[json.loads(cell) for cell in column] for column in examples.columns.values()] == [tags]


def test_a_conll_column_that_is_empty_in_places_stays(tmp_path):
    examples = read_examples([write(tmp_path, "a.conll", "a\tN\t\nb\tV\tX\n")])
    assert {name: json.loads(column[0]) for name, column in examples.columns.items()} == {
        "column_2": ["N", "V"],
        "tags": ["", "X"],
    }
