"""CSV and TSV: rows, quotes, encodings."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.inputs.read import read_examples
from tests.inputs.cases import error_of, write

NASTY = st.text(st.sampled_from("a\"',;\t\n\r é\u2028\x1c\x0b😀NUL\\"), max_size=12) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(NASTY.filter(str.strip), NASTY), min_size=1, max_size=8))
def test_csv_round_trip(rows):
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)  # quotes a field with a CR or LF, so that both come back as they were
    writer.writerows([("text", "note"), ("words", "xfirst"), *((text, f"x{note}x") for text, note in rows)])
    with tempfile.TemporaryDirectory() as folder:
        examples = read_examples([write(Path(folder), "a.csv", buffer.getvalue())])
    assert examples.texts == ["words", *(text for text, _ in rows)]
    assert examples.columns["note"].tolist() == ["xfirst", *(f"x{note}x" for _, note in rows)]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(NASTY.filter(lambda t: t.strip() and not set(t) & set("\t\n\r")), min_size=1, max_size=8), st.booleans()
)
def test_tsv_round_trip(texts, windows):
    end = "\r\n" if windows else "\n"
    lines = ["text\ty", "words\t1", *(f"{text}\t1" for text in texts)]
    with tempfile.TemporaryDirectory() as folder:
        examples = read_examples([write(Path(folder), "a.tsv", end.join(lines))])
    assert examples.texts == ["words", *texts]
    assert [*examples.columns] == ["y"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("tail", ["", "END", "ENDENDEND"])
def test_line_ends_of_csv(tmp_path, end, tail):
    path = write(tmp_path, "a.csv", f"text,y{end}one,1{end}two,2{tail.replace('END', end)}")
    examples = read_examples([path])
    assert examples.texts == ["one", "two"]
    assert examples.columns["y"].tolist() == [1, 2]


@pytest.mark.parametrize("name", ["a.csv", "a.TSV", "a.jsonl"])
def test_byte_order_mark_is_no_text(tmp_path, name):
    body = (
        '{"text": "é", "y": 1}\n' if name == "a.jsonl" else "text,y\né,1\n".replace(",", "," if "c" in name else "\t")
    )
    examples = read_examples([write(tmp_path, name, b"\xef\xbb\xbf" + body.encode())])
    assert (examples.texts, examples.text_column) == (["é"], "text")


def test_long_field_and_the_csv_limit(tmp_path):
    before = csv.field_size_limit()
    text = "x" * (before + 1)
    assert read_examples([write(tmp_path, "a.csv", f"text\n{text}\n")]).texts == [text]
    assert csv.field_size_limit() == before


def test_index_column_of_pandas(tmp_path):
    examples = read_examples([write(tmp_path, "a.csv", ",text\n0,one\n1,two\n")])
    assert examples.columns["Unnamed: 0"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "a.csv: a header line and at least one row; got an empty file"),
        ("a.tsv", "\n\n", "a.tsv: a header line and at least one row; got an empty file"),
        ("a.csv", "text,y\n", "a.csv: at least one row; got none"),
        (
            "a.csv",
            "text;y\na;1\n",
            "a.csv, line 1: a .csv file has commas between its fields, a .tsv file tabs; got one column 'text;y'",
        ),
        (
            "a.tsv",
            "text,y\na,1\n",
            "a.tsv, line 1: a .csv file has commas between its fields, a .tsv file tabs; got one column 'text,y'",
        ),
        ("a.csv", "\ntext,y\na,1\n", "a.csv, line 1: a header line with the columns' names; got a blank line"),
        ("a.tsv", "\ntext\na\n", "a.tsv, line 1: a header line with the columns' names; got a blank line"),
        ("a.csv", "text,y,y\na,1,1\n", "a.csv, line 1: every column must have a name of its own; got 'y' twice"),
        ("a.csv", 'text,y\n"a\nb",1\nc,1,2\n', "a.csv, line 4: every row must have the header's 2 fields; got 3"),
        ("a.csv", "text,y\na,1\nc\n", "a.csv, line 3: every row must have the header's 2 fields; got 1"),
        ("a.csv", "text,y\n\na,1\n", "a.csv, line 2: every row must have the header's 2 fields; got a blank line"),
        ("a.tsv", "text\ty\na\t1\tb\n", "a.tsv, line 2: every row must have the header's 2 fields; got 3"),
        ("a.tsv", "text\ty\n\na\t1\n", "a.tsv, line 2: every row must have the header's 2 fields; got a blank line"),
        (
            "a.csv",
            'text,y\n"a ""b""\nc",1\n"never closed,1\nd,2\n',
            "a.csv, line 4: a field that begins with a quote must end with one, and quotes within it are written "
            "twice; got unexpected end of data",
        ),
        (
            "a.csv",
            'text,y\n"a"b,1\n',
            "a.csv, line 2: a field that begins with a quote must end with one, and quotes within it are written "
            "twice; got ',' expected after '\"'",
        ),
        (
            "a.csv",
            "text,y\nabc,1\ncaf\xe9,2\n".encode("latin-1"),
            "a.csv, line 3, byte 4: the file must be UTF-8 text; got byte 0xe9",
        ),
        (
            "a.tsv",
            "text\ty\nabc\t1\n".encode("utf-16-le"),
            "a.tsv, line 1, byte 2: the file must be UTF-8 text; got a NUL byte (is it UTF-16, or no text file?)",
        ),
        (
            "a.jsonl",
            b'{"text": "a"}\n{"text": "\0"}\n',
            "a.jsonl, line 2, byte 11: the file must be UTF-8 text; got a NUL byte (is it UTF-16, or no text file?)",
        ),
    ],
)
def test_refused_files(tmp_path, name, content, message):
    assert error_of(write(tmp_path, name, content)) == f"InputError: {message}"


def test_two_hundred_thousand_rows(tmp_path):
    path = write(tmp_path, "a.csv", "text,y,z\n" + "".join(f'"row, {row}",{row},{row / 2}\n' for row in range(200_000)))
    examples = read_examples([path])
    assert examples.texts[-1] == "row, 199999"
    np.testing.assert_array_equal(examples.columns["y"], np.arange(200_000))
    np.testing.assert_array_equal(examples.columns["z"], np.arange(200_000) / 2)
