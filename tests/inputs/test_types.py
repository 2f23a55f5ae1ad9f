"""Which type a column gets, in every format."""

from __future__ import annotations

import datetime
import decimal
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from probekit.inputs.read import read_examples
from tests.inputs.cases import error_of, write

NAN = float("nan")


def csv_column(tmp_path, cells):
    path = write(tmp_path, "a.csv", "text,y\n" + "".join(f'row,"{cell}"\n' for cell in cells))
    return read_examples([path]).columns["y"]


@pytest.mark.parametrize(
    ("cells", "dtype", "values"),
    [
        (["0", "-12", "+3", " 4 "], np.int64, [0, -12, 3, 4]),
        (["9223372036854775807", "-9223372036854775808"], np.int64, [2**63 - 1, -(2**63)]),
        (["1", "", "3"], np.float64, [1.0, NAN, 3.0]),
        (["1", "2.5", ".5", "3.", "1e-3", "-2E2"], np.float64, [1, 2.5, 0.5, 3.0, 0.001, -200]),
        (["1.5", "nan", "inf", "-Infinity", "NaN"], np.float64, [1.5, NAN, np.inf, -np.inf, NAN]),
        (["true", "False", "TRUE"], np.bool_, [True, False, True]),
    ],
)
def test_csv_numbers_and_booleans(tmp_path, cells, dtype, values):
    column = csv_column(tmp_path, cells)
    assert column.dtype == dtype
    np.testing.assert_array_equal(column, np.array(values, dtype=dtype))


@pytest.mark.parametrize(
    "cells",
    [
        ["NA", "null", "None", "N/A", "NULL"],
        ["NA", "", "EU"],
        ["", ""],
        ["1", "NA"],
        ["007", "12"],
        ["01067", "10115"],
        ["00.5", "1.5"],
        ["9223372036854775808", "1"],
        ["12345678901234567890123", "1.5"],
        ["9007199254740993", ""],  # 2**53 + 1 is no float64
        ["1_000", "2"],
        ["١", "٢"],
        ["0x10", "1"],
        ["true", ""],
        ["yes", "no"],
        ["1,5", "2,5"],
        [" a", "b "],
    ],
)
def test_csv_words_stay_as_written(tmp_path, cells):
    column = csv_column(tmp_path, cells)
    assert column.dtype == object
    assert column.tolist() == cells


def test_words_for_nothing_are_texts_too(tmp_path):
    examples = read_examples([write(tmp_path, "a.tsv", "text\tregion\nNull\tNA\nNA\tNA\nNone\tEU\n")])
    assert examples.texts == ["Null", "NA", "None"]
    assert examples.columns["region"].tolist() == ["NA", "NA", "EU"]


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([1, 2], np.int64, [1, 2]),
        ([1, None], np.float64, [1, NAN]),
        ([1, 2.5], np.float64, [1, 2.5]),
        ([True, False], np.bool_, [True, False]),
        ([True, None], object, ["true", ""]),
        (["1", "2"], object, ["1", "2"]),
        (["NA", None], object, ["NA", ""]),
        ([None, None], object, ["", ""]),
        ([2**63, 1], object, ["9223372036854775808", "1"]),
        ([2**53 + 1, None], object, ["9007199254740993", ""]),
        ([2**53 + 1, 0.5], object, ["9007199254740993", "0.5"]),
    ],
)
def test_jsonl_keeps_types(tmp_path, values, dtype, expected):
    rows = [json.dumps({"text": "a", "y": value}) for value in values]
    column = read_examples([write(tmp_path, "a.jsonl", "\n".join(rows))]).columns["y"]
    assert column.dtype == dtype
    np.testing.assert_array_equal(column, np.array(expected, dtype=dtype))


def test_jsonl_lacking_keys_are_missing_and_nested_columns_left_out(tmp_path):
    rows = ['{"text": "a\\u2028b", "n": 1, "tags": [["x"]]}', '{"extra": "e", "text": "b", "tags": null}']
    examples = read_examples([write(tmp_path, "a.jsonl", "\n".join(rows) + "\n\n")])
    assert examples.texts == ["a\u2028b", "b"]
    assert [*examples.columns] == ["n", "extra"]
    np.testing.assert_array_equal(examples.columns["n"], [1, NAN])
    assert examples.columns["extra"].tolist() == ["", "e"]


def test_jsonl_line_separator_within_a_text_is_no_line_end(tmp_path):
    texts = ["a\u2028b", "c\x85d", "e\x0cf"]
    body = "\r\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts)
    assert read_examples([write(tmp_path, "a.jsonl", body)]).texts == texts


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{'text': 1}"], "line 1: every line must be a JSON object; got Expecting property name enclosed in double"),
        (['{"text": "a"}', "", '{"text": "b"}'], "line 2: every line must be a JSON object; got a blank line"),
        (['["a"]'], "line 1: every line must be a JSON object; got list"),
        (['{"text": "a", "text": "b"}'], "line 1: every line must be a JSON object; got the key 'text' twice"),
        (['{"text": ' + "[" * 100_000], "line 1: every line must be a JSON object; got maximum recursion depth"),
        (['{"text": "a", "y": ' + "1" * 5000 + "}"], "line 1: every line must be a JSON object; got Exceeds the limit"),
    ],
)
def test_jsonl_refused_lines(tmp_path, lines, message):
    found = error_of(write(tmp_path, "a.jsonl", "\n".join(lines)))
    assert found.startswith(f"InputError: a.jsonl, {message}")


def test_jsonl_refused_columns(tmp_path):
    rows = [{"text": "a", "y": None}, {"text": "b", "y": "x"}, {"text": "c", "y": 5}]
    path = write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert error_of(path) == (
        "InputError: a.jsonl, row 3, column 'y': one type per column, and a.jsonl, row 2 has text; got a number (5)"
    )
    path = write(tmp_path, "b.jsonl", '{"text": "a", "": 1}')
    assert error_of(path) == "InputError: b.jsonl: column names are text without NUL or lone surrogates; got ''"
    path = write(tmp_path, "b.jsonl", '{"text": "a", "\\ud83d": 1}')
    assert error_of(path) == "InputError: b.jsonl: column names are text without NUL or lone surrogates; got '\\ud83d'"
    path = write(tmp_path, "c.jsonl", '{"text": "a"}\n{"text": "b\\ud83d"}')
    assert error_of(path) == (
        "InputError: c.jsonl, row 2, column 'text': text must have no NUL and no lone surrogate; got 'b\\ud83d'"
    )
    path = write(tmp_path, "d.jsonl", '{"text": "a", "y": "\\u0000"}')
    assert error_of(path) == (
        "InputError: d.jsonl, row 1, column 'y': text must have no NUL and no lone surrogate; got '\\x00'"
    )
    path = write(tmp_path, "f.jsonl", '{"text": "a", "id": "x\\u0000"}')
    assert error_of(path) == (
        "InputError: f.jsonl, row 1, column 'id': text must have no NUL and no lone surrogate; got 'x\\x00'"
    )
    assert error_of(write(tmp_path, "e.jsonl", "\n")) == "InputError: e.jsonl: at least one row; got none"


def test_parquet_types(tmp_path):
    day, moment = datetime.date(2024, 2, 29), datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC)
    table = pa.table(
        {
            "text": pa.array(["NA", "b"], pa.large_string()),
            "view": pa.array([None, "x"], pa.string_view()),
            "small": pa.array([1, 2], pa.int8()),
            "gap": pa.array([1, None], pa.int32()),
            "void": pa.array([None, None], pa.int32()),
            "none": pa.nulls(2),
            "huge": pa.array([2**64 - 1, None], pa.uint64()),
            "half": pa.array(np.array([0.5, 1.5], np.float16)),
            "single": pa.array([0.25, None], pa.float32()),
            "money": pa.array([decimal.Decimal("1.25"), None]),
            "flag": pa.array([True, False]),
            "maybe": pa.array([True, None]),
            "kind": pa.array(["x", None]).dictionary_encode(),
            "day": pa.array([day, None]),
            "moment": pa.array([moment, None], pa.timestamp("ns", tz="UTC")),
            "clock": pa.array([datetime.time(1, 2), None]),
            "tags": pa.array([["a"], []]),
            "raw": pa.array([b"a", b"b"]),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    examples = read_examples([tmp_path / "a.parquet"])
    assert examples.texts == ["NA", "b"]
    expected = {
        "view": ["", "x"],
        "small": np.array([1, 2]),
        "gap": np.array([1, NAN]),
        "void": np.array([NAN, NAN]),
        "none": ["", ""],
        "huge": ["18446744073709551615", ""],
        "half": np.array([0.5, 1.5]),
        "single": np.array([0.25, NAN]),
        "money": np.array([1.25, NAN]),
        "flag": np.array([True, False]),
        "maybe": ["true", ""],
        "kind": ["x", ""],
        "day": ["2024-02-29", ""],
        "moment": ["2024-02-29T12:30:00+00:00", ""],
        "clock": ["01:02:00", ""],
        "tags": ['["a"]', "[]"],
    }
    assert [*examples.columns] == [*expected]
    for name, values in expected.items():
        wanted = np.array(values, dtype=object) if isinstance(values, list) else values
        assert examples.columns[name].dtype == wanted.dtype, name
        np.testing.assert_array_equal(examples.columns[name], wanted, err_msg=name)


def test_parquet_refused(tmp_path):
    assert error_of(write(tmp_path, "a.parquet", "PAR1 no")).startswith(
        "InputError: a.parquet: a readable Parquet file; got "
    )
    pq.write_table(pa.table([["a"], ["b"]], names=["text", "text"]), tmp_path / "b.parquet")
    assert error_of(tmp_path / "b.parquet") == (
        "InputError: b.parquet: every column must have a name of its own; got 'text' twice"
    )
    pq.write_table(pa.table({"text": pa.array(["a", "b"]), "x": [[["l"]], []]}), tmp_path / "c.parquet")
    assert error_of(tmp_path / "c.parquet", text="x") == (
        "InputError: c.parquet, column 'x': the text column must hold text; got list<element: list<element: string>>"
    )
    bad = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(np.array([0, 1, 3], np.int32)), pa.py_buffer(b"aZ\xe9")]
    )
    pq.write_table(pa.table({"text": bad}), tmp_path / "d.parquet")
    assert error_of(tmp_path / "d.parquet") == (
        "InputError: d.parquet, row 2, column 'text': text must be UTF-8; got byte 0xe9"
    )
    late = pa.array([0, 4_000_000], pa.date32())
    pq.write_table(pa.table({"text": ["a", "b"], "day": late}), tmp_path / "f.parquet")
    assert error_of(tmp_path / "f.parquet") == (
        "InputError: f.parquet, row 2, column 'day': dates must be within the years 1 to 9999; "
        "got date value out of range"
    )
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "e.parquet")
    assert error_of(tmp_path / "e.parquet") == "InputError: e.parquet: at least one row; got none"
