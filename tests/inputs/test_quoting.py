"""Tab-separated files with quotes around fields, and those whose quotes are characters."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from probekit.inputs.quoting import read_quoted
from probekit.inputs.read import read_examples
from tests.inputs.cases import DATA, write

TEXT = st.text(st.sampled_from('ab "\t\n,1'), min_size=1, max_size=8).filter(str.strip)
SINGLE = st.text(st.sampled_from('ab ",'), min_size=1, max_size=8).filter(str.strip)


def read(content, name="a.tsv", **options):
    with tempfile.TemporaryDirectory() as folder:
        return read_examples([write(Path(folder), name, content)], **options)


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=5), st.sampled_from(["\n", "\r\n"]), st.sampled_from([0, 1, 2]))
def test_what_pandas_wrote_is_read_as_it_was(texts, end, quoting):
    """All of it, but a field that runs over lines which are rows like any other and which no doubled quote tells."""
    fields = [*texts, "x"]
    lines = [line for text in fields for line in f"{text}\t1".split("\n")]
    assume('"' in "".join(texts) or any(line.count("\t") != 1 for line in lines) or "\n" not in "".join(texts))
    frame = pd.DataFrame({"text": fields, "y": 1})
    examples = read(frame.to_csv(sep="\t", index=False, lineterminator=end, quoting=quoting))
    assert examples.texts == fields
    assert examples.columns["y"].tolist() == [1] * len(fields)


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=5))
def test_one_column_that_pandas_wrote(texts):
    assume("\t" not in "".join(texts) or "\n" in "".join(texts) or '"' in "".join(texts))
    frame = pd.DataFrame({"text": [*texts, 'a "b"']})
    assert read(frame.to_csv(sep="\t", index=False)).texts == [*texts, 'a "b"']


@settings(max_examples=150, deadline=None)
@given(st.lists(SINGLE, min_size=1, max_size=5))
def test_what_was_written_without_quotes_is_read_as_written(texts):
    content = "text\ty\n" + "".join(f"{text}\t1\n" for text in texts)
    quoted = read_quoted(content)
    # What pandas could have written for other texts is read as those.
    written = quoted and pd.DataFrame(quoted.rows[1:], columns=quoted.rows[0]).to_csv(sep="\t", index=False)
    assume(written != content)
    excel = quoted and ",".join(texts).count(",")  # (and so is what a spreadsheet could have)
    assume(not excel or all(not any(marks) for marks in quoted.in_quotes) or '""' not in content)
    assert read(content).texts == texts


@pytest.mark.parametrize(
    "text",
    [
        '"quoted"',
        '"Well, yes," he said',
        '"Well, yes"',
        'he said "hi"',
        '"',
        '""',
        '"" and ""',
        '"never closed',
        'closed only"',
        '""twice""',
        '"a"b"',
        "``tokens''",
        'a 5" disk',
    ],
)
def test_quotes_that_are_characters(text):
    assert read(f"text\ty\n{text}\t1\nplain\t2\n").texts == [text, "plain"]
    assert read(f"text\ty\n{text}\t1\nan, other\t2\n{text}\t2\n").texts == [text, "an, other", text]


def test_a_quotation_that_runs_over_rows_stays_rows():
    texts = ['"I came', "I saw", 'I won"', "plain"]
    for labels in ("1011", "abab"):
        rows = "".join(f"{text}\t{label}\n" for text, label in zip(texts, labels, strict=True))
        assert read(f"text\ty\n{rows}").texts == texts
    assert read('text\ty\n"I came\n\nI saw\t1\nI won"\t2\n').texts == ["I came\n\nI saw\t1\nI won"]


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ('"He said ""hi"" to me"', 'He said "hi" to me'),
        ('"""quoted"""', '"quoted"'),
        ('"a\tb"', "a\tb"),
        ('"a\nb"', "a\nb"),
        ('"a\n\n""b"""', 'a\n\n"b"'),
        ('""""', '"'),
        ('"a\rb"', "a\rb"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_quotes_around_fields(field, text, end):
    examples = read(end.join(["text\ty", f"{field}\t1", "plain\t2", ""]))
    assert (examples.texts, examples.columns["y"].tolist()) == ([text, "plain"], [1, 2])
    assert examples.notes == ("a.tsv: 1 field is in quotes, as pandas and spreadsheets write them, and read without",)


def test_spreadsheets_quote_commas_too():
    assert read('text\ty\n"a, b"\t1\n"c ""d"""\t2\nplain\t3\n').texts == ["a, b", 'c "d"', "plain"]
    examples = read('text\ty\n"a, b"\t1\n"c ""d"""\t2\nplain, too\t3\n')
    assert examples.texts == ['"a, b"', '"c ""d"""', "plain, too"]
    assert examples.notes == ("a.tsv: 2 fields are in quotes, which are read as a part of the text",)


def test_all_quoted():
    buffer = io.StringIO()
    csv.writer(buffer, delimiter="\t", quoting=csv.QUOTE_NONNUMERIC).writerows([("text", "y"), ("a b", 1), ("c", 2)])
    examples = read(buffer.getvalue())
    assert (examples.texts, examples.columns["y"].tolist()) == (["a b", "c"], [1, 2])


def test_an_error_names_the_line_on_which_a_row_begins():
    with pytest.raises(Exception, match=r"a\.tsv, row 2 \(line 4\), column 'text': text must not be empty"):
        read('text\ty\n"a\nb"\t1\n \t2\n')


@pytest.mark.skipif(not (DATA / "sst2").is_dir(), reason="SST-2 (../shared/data/sst2) is not beside this checkout")
def test_bare_quotes_of_sst2_are_read_as_they_are():
    for part in ("train", "dev", "test"):
        lines = (DATA / "sst2" / f"{part}.tsv").read_text(encoding="utf-8").splitlines()[1:]
        examples = read_examples([DATA / "sst2" / f"{part}.tsv"])
        assert examples.texts == [line.split("\t")[0] for line in lines]
        assert examples.notes == ()
