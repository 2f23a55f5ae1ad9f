"""Columns of lists, and lists of words as the text."""

from __future__ import annotations

import decimal
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from probekit.errors import InputError
from probekit.inputs import read_examples
from tests.inputs.cases import error_of, examples_from_dataset_dict, write

TAGGED = {"tokens": ["New", "York"], "ner_tags": ["B-loc", "I-loc"]}


def jsonl(folder, *rows, name="a.jsonl"):
    return write(folder, name, "\n".join(map(json.dumps, rows)))


@pytest.mark.parametrize(
    ("lists", "cells"),
    [
        ([["a", "ü"], []], ['["a","ü"]', "[]"]),
        ([["a"], None], ['["a"]', ""]),
        ([[1, -2], [0.5]], ["[1,-2]", "[0.5]"]),
        ([[True], [False, True]], ["[true]", "[false,true]"]),
        ([[], []], ["[]", "[]"]),
    ],
)
def test_flat_lists_are_json_text(tmp_path, lists, cells):
    path = jsonl(tmp_path, *({"text": "t", "y": value} for value in lists))
    column = read_examples([path]).columns["y"]
    assert column.dtype == object
    assert column.tolist() == cells
    pq.write_table(pa.table({"text": ["t", "t"], "y": lists}), tmp_path / "a.parquet")
    assert [json.loads(cell or "null") for cell in read_examples([tmp_path / "a.parquet"]).columns["y"]] == lists


@pytest.mark.parametrize(
    "lists", [[["a", None]], [[["a"]]], [[{"a": 1}]], [["a"], "b"], [["a", 1]], [["a"], [1]], [[True, 1]]]
)
def test_other_lists_are_left_out(tmp_path, lists):
    path = jsonl(tmp_path, *({"text": "t", "y": value} for value in lists))
    assert dict(read_examples([path]).columns) == {}


@pytest.mark.parametrize("lists", [[["a", None]], [[1, None]], [[["a"]]], [[{"a": 1}]], [[b"raw"]]])
def test_other_parquet_lists_are_left_out(tmp_path, lists):
    pq.write_table(pa.table({"text": ["t"], "y": lists}), tmp_path / "a.parquet")
    assert dict(read_examples([tmp_path / "a.parquet"]).columns) == {}


@pytest.mark.parametrize(
    ("kind", "values", "cell"),
    [
        (pa.large_list(pa.string()), ["a", "b"], '["a","b"]'),
        (pa.list_(pa.large_string(), 2), ["a", "b"], '["a","b"]'),
        (pa.list_(pa.dictionary(pa.int8(), pa.string())), ["a", "a"], '["a","a"]'),
        (pa.list_(pa.float16()), [0.5], "[0.5]"),
        (pa.list_(pa.decimal128(3, 2)), [decimal.Decimal("1.25")], "[1.25]"),
        (pa.list_(pa.bool_()), [True], "[true]"),
        (pa.list_(pa.null()), [], "[]"),
    ],
)
def test_arrow_lists(tmp_path, kind, values, cell):
    pq.write_table(pa.table({"text": ["t"], "y": pa.array([values], kind)}), tmp_path / "a.parquet")
    assert read_examples([tmp_path / "a.parquet"]).columns["y"].tolist() == [cell]


@pytest.mark.parametrize("name", ["tokens", "Words"])
def test_lists_of_words_are_found_as_the_text(tmp_path, name):
    rows = [{"source": "s", name: ["New York", "is"], "tags": ["B", "O"]}, {"source": "s", name: ["ü"], "tags": []}]
    examples = read_examples([jsonl(tmp_path, *rows)])
    assert (examples.text_column, examples.words) == (name, [["New York", "is"], ["ü"]])
    assert examples.texts == ["New York is", "ü"]
    assert {column: values.tolist() for column, values in examples.columns.items()} == {
        "source": ["s", "s"],
        "tags": ['["B","O"]', "[]"],
    }


def test_text_before_words(tmp_path):
    path = jsonl(tmp_path, {"tokens": ["a", "b"], "sentence": "a  b", "parts": ["c"], "scores": [1]})
    examples = read_examples([path])
    assert (examples.text_column, examples.texts, examples.words) == ("sentence", ["a  b"], None)
    assert examples.columns["tokens"].tolist() == ['["a","b"]']
    assert read_examples([path], text="tokens").words == [["a", "b"]]
    examples = read_examples([path], text="parts")
    assert (examples.words, [*examples.columns]) == ([["c"]], ["tokens", "sentence", "scores"])
    assert error_of(path, text="scores") == (
        "InputError: a.jsonl, column 'scores': the text column must hold text; got lists of numbers"
    )


def test_other_lists_are_not_found_as_the_text(tmp_path):
    path = jsonl(tmp_path, {"body": "b", "text": ["a"], "tokens": [1]})
    assert read_examples([path]).text_column == "body"
    path = jsonl(tmp_path, {"parts": ["a"]})
    assert error_of(path).startswith("InputError: a.jsonl: name the text column with --text; none of them is called")


def test_lists_are_no_ids(tmp_path):
    path = jsonl(tmp_path, {"text": "a", "id": [1]}, {"text": "b", "id": [1]})
    examples = read_examples([path])
    assert (examples.ids.tolist(), examples.columns["id"].tolist()) == (["0", "1"], ["[1]", "[1]"])
    assert error_of(path, id_column="id") == (
        "InputError: a.jsonl, column 'id': ids must be text or numbers; got lists of numbers"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "column 'tokens': every row must have a list of words; got []"),
        (None, "column 'tokens': every row must have a list of words; got none"),
        (["a", ""], "column 'tokens', word 2: a word must not be empty; got ''"),
        (["\u00a0", "a"], "column 'tokens', word 1: a word must not be empty; got '\\xa0'"),
        (["a", "b\0"], "column 'tokens': text must have no NUL and no lone surrogate; got 'a b\\x00'"),
        (["\ud83d"], "column 'tokens': text must have no NUL and no lone surrogate; got '\\ud83d'"),
    ],
)
def test_refused_words(tmp_path, words, message):
    path = jsonl(tmp_path, {"tokens": ["a"]}, {"tokens": words})
    assert error_of(path) == f"InputError: a.jsonl, row 2, {message}"


def test_words_in_all_files_or_in_none(tmp_path):
    lists = jsonl(tmp_path, TAGGED)
    more = jsonl(tmp_path, {"tokens": ["ok"], "ner_tags": ["O"]}, name="b.jsonl")
    examples = read_examples([lists, more])
    assert (examples.words, examples.texts) == ([["New", "York"], ["ok"]], ["New York", "ok"])
    assert examples.columns["split"].tolist() == ["a", "b"]
    text = jsonl(tmp_path, {"tokens": "New York", "ner_tags": "x"}, name="c.jsonl")
    for paths in ([lists, text], [text, lists]):
        assert error_of(*paths) == "InputError: c.jsonl, column 'tokens': lists of words, as a.jsonl has; got text"
    numbers = jsonl(tmp_path, {"tokens": [1], "ner_tags": ["x"]}, name="d.jsonl")
    assert error_of(lists, numbers) == (
        "InputError: d.jsonl, column 'tokens': the text column must hold text; got lists of numbers"
    )
    nested = jsonl(tmp_path, {"tokens": [None], "ner_tags": ["x"]}, name="e.jsonl")
    assert (
        error_of(lists, nested)
        == "InputError: e.jsonl, column 'tokens': the text column must hold text; got a list with an empty (null) item"
    )


def test_plain_texts_have_no_words(tmp_path):
    assert read_examples([write(tmp_path, "a.csv", "text\na b\n")]).words is None


def labelled():
    datasets = pytest.importorskip("datasets")
    classes = datasets.ClassLabel(names=["O", "B-loc", "I-loc"])
    features = {
        "tokens": datasets.Sequence(datasets.Value("string")),
        "ner_tags": datasets.Sequence(classes),
        "large": datasets.LargeList(classes),
        "numbers": datasets.Sequence(datasets.Value("int64")),
    }
    rows = {
        "tokens": [["New", "York"], ["ok"]],
        "ner_tags": [[1, 2], [-1]],
        "large": [[0], None],
        "numbers": [[1, 2], [0]],
    }
    return datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows, features=datasets.Features(features))})


NAMED = {"ner_tags": ['["B-loc","I-loc"]', '[""]'], "large": ['["O"]', ""], "numbers": ["[1,2]", "[0]"]}


def test_lists_of_class_labels_become_names():
    examples = examples_from_dataset_dict(labelled(), "org/ner")
    assert examples.words == [["New", "York"], ["ok"]]
    assert {name: values.tolist() for name, values in examples.columns.items()} == NAMED


def test_a_parquet_file_of_datasets_has_the_names(tmp_path):
    labelled()["train"].to_parquet(tmp_path / "a.parquet")
    examples = read_examples([tmp_path / "a.parquet"])
    assert {name: values.tolist() for name, values in examples.columns.items()} == NAMED


def features_of(item):
    return json.dumps({"info": {"features": {"tags": item}}})


@pytest.mark.parametrize(
    ("metadata", "cell"),
    [
        (features_of([{"names": ["O", "B"], "_type": "ClassLabel"}]), '["B"]'),
        (features_of({"feature": {"names": ["O", "B"], "_type": "ClassLabel"}, "_type": "Sequence"}), '["B"]'),
        (features_of({"feature": {"names": ["O"], "_type": "ClassLabel"}}), "[1]"),
        (features_of({"feature": {"names": {"1": "B"}, "_type": "ClassLabel"}}), "[1]"),
        (features_of({"feature": {"names": [7, 8], "_type": "ClassLabel"}}), "[1]"),
        (features_of({"feature": {"dtype": "int64", "_type": "Value"}}), "[1]"),
        (features_of({"feature": {"names": ["O", "B"], "_type": "Other"}}), "[1]"),
        (features_of({"feature": [1]}), "[1]"),
        (features_of(None), "[1]"),
        ('{"info": {"features": []}}', "[1]"),
        ('{"info": null}', "[1]"),
        ("[]", "[1]"),
        ("{", "[1]"),
        (b"\xff", "[1]"),
    ],
)
def test_other_metadata_leave_the_codes(tmp_path, metadata, cell):
    table = pa.table({"text": ["t"], "tags": [[1]]}).replace_schema_metadata({"huggingface": metadata})
    pq.write_table(table, tmp_path / "a.parquet")
    assert read_examples([tmp_path / "a.parquet"]).columns["tags"].tolist() == [cell]


def test_damaged_text_in_a_list_names_the_row():
    datasets = pytest.importorskip("datasets")
    text = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xe9")]
    )
    table = pa.table({"tokens": pa.ListArray.from_arrays([0, 1, 2], text)})
    with pytest.raises(InputError) as caught:
        examples_from_dataset_dict(datasets.DatasetDict({"train": datasets.Dataset(table)}), "d")
    assert str(caught.value) == "d, split 'train', row 2, column 'tokens': text must be UTF-8; got byte 0xe9"
