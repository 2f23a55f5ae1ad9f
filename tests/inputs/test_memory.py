"""Data in memory give the same examples as the same data in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from probekit.errors import ProbekitError
from probekit.inputs.memory import texts_or_sources
from probekit.inputs.read import read_examples
from probekit.store import columns_digest, text_digest
from tests.inputs.cases import write

datasets = pytest.importorskip("datasets")

FRAME = pd.DataFrame(
    {
        "text": ["a b", 'c\td "e"', "f,\ng"],
        "label": ["x", "y", "x"],
        "n": [1, 2, 3],
        "score": [0.5, np.nan, 2.25],
        "yes": [True, False, True],
    },
    index=[5, 9, 7],
)


def digests(examples):
    return text_digest(examples.texts), columns_digest(examples.columns, examples.ids)


def error_of(data, labels=None, **options):
    with pytest.raises(ProbekitError) as caught:
        read_examples(texts_or_sources(data, labels), **options)
    assert "\n" not in str(caught.value)
    return f"{type(caught.value).__name__}: {caught.value}"


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_a_data_frame_is_what_its_file_is(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    write_frame = {
        "csv": lambda: FRAME.to_csv(path, index=False),
        "tsv": lambda: FRAME.to_csv(path, index=False, sep="\t"),
        "jsonl": lambda: FRAME.to_json(path, orient="records", lines=True),
        "parquet": lambda: FRAME.to_parquet(path, index=False),
    }
    write_frame[ending]()
    from_file = read_examples([path])
    dataset = datasets.Dataset.from_pandas(FRAME, preserve_index=False)
    columns = FRAME.drop(columns="text")
    for data in (
        FRAME,
        dataset,
        texts_or_sources(FRAME["text"].tolist(), columns),
        texts_or_sources(FRAME.text, columns),
    ):
        assert digests(read_examples(data)) == digests(from_file)


def test_types_of_pandas():
    frame = pd.DataFrame(
        {
            "text": pd.array(["a", "b"], dtype="string"),
            "nullable": pd.array([1, None], dtype="Int64"),
            "maybe": pd.array([True, None], dtype="boolean"),
            "category": pd.Categorical(["x", None]),
            "codes": pd.Categorical([3, 4]),
            "single": np.array([0.5, 1], dtype=np.float32),
            "small": np.array([1, 2], dtype=np.int8),
            "moment": pd.to_datetime(["2024-01-02 03:04", None]),
            "lists": [["p"], ["q", "r"]],
            "arrays": [np.array([1, 2]), np.array([3])],
            "sparse": pd.arrays.SparseArray([1, 0]),
            "scalars": pd.Series([np.int64(1), np.int64(2)], dtype=object),
            "huge": pd.Series([2**70, 1], dtype=object),
        }
    )
    examples = read_examples(frame)
    assert examples.source == "DataFrame"
    expected = {
        "nullable": [1.0, np.nan],
        "maybe": ["true", ""],
        "category": ["x", ""],
        "codes": [3, 4],
        "single": [0.5, 1.0],
        "small": [1, 2],
        "moment": ["2024-01-02T03:04:00", ""],
        "lists": ['["p"]', '["q","r"]'],
        "arrays": ["[1,2]", "[3]"],
        "sparse": [1, 0],
        "scalars": [1, 2],
        "huge": ["1180591620717411303424", "1"],
    }
    assert [*examples.columns] == [*expected]
    for name, values in expected.items():
        np.testing.assert_array_equal(examples.columns[name], np.array(values, examples.columns[name].dtype))
        assert examples.columns[name].dtype.kind in "Oif"


def test_what_a_data_frame_can_hold_and_a_cache_not_is_named():
    frame = pd.DataFrame(
        {
            "text": ["a", "b"],
            "raw": [b"x", b"y"],
            "period": pd.period_range("2024", periods=2, freq="D"),
            "dicts": [{"a": 1}, {"a": 2}],
            "objects": [None, Path("x")],
            "complex": np.array([1j, 2]),
        }
    )
    examples = read_examples(frame)
    assert dict(examples.columns) == {}
    assert [note.split(" is left out: ")[0] for note in examples.notes] == [
        f"column {name!r}" for name in ("raw", "period", "dicts", "objects", "complex")
    ]
    assert "row 2 has PosixPath" in examples.notes[3]


def test_ids_of_a_data_frame():
    assert read_examples(FRAME).ids.tolist() == ["0", "1", "2"]
    assert read_examples(FRAME, id_column="index").ids.tolist() == ["5", "9", "7"]
    assert read_examples(FRAME.rename_axis("doc"), id_column="doc").ids.tolist() == ["5", "9", "7"]
    assert read_examples(FRAME.assign(id=["p", "q", "r"])).ids.tolist() == ["p", "q", "r"]
    assert "column 'doc': this table has" in error_of(FRAME, id_column="doc")


def test_lists_of_texts():
    examples = read_examples(texts_or_sources(["good film", "bad film"], np.array([1, 0])))
    assert (examples.source, examples.text_column, examples.texts) == (
        "list of texts",
        "text",
        ["good film", "bad film"],
    )
    assert examples.columns["label"].tolist() == [1, 0]
    examples = read_examples(texts_or_sources(np.array(["x y", "z"]), {"id": ["p", "q"], "kind": [None, "k"]}))
    assert all(type(text) is str for text in examples.texts)
    assert (examples.ids.tolist(), examples.columns["kind"].tolist()) == (["p", "q"], ["", "k"])
    assert read_examples(texts_or_sources(["and/or", "x y"])).texts == ["and/or", "x y"]
    assert read_examples(texts_or_sources(["train.csv"], [1])).texts == ["train.csv"]


def test_lists_of_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "train.csv", "text,y\na,1\n")
    write(tmp_path, "test.csv", "text,y\nb,2\n")
    for data in (["train.csv", "test.csv"], ("train.csv", "test.csv"), [Path("train.csv"), "test.csv"]):
        assert read_examples(texts_or_sources(data)).texts == ["a", "b"]
    assert error_of(["zzzzzz.csv"]) == "InputError: zzzzzz.csv: there is no such file"
    assert error_of(["zzzzzz.txt"]) == "InputError: zzzzzz.txt: there is no such file"


@pytest.mark.parametrize(
    ("data", "labels", "message"),
    [
        ([], None, "SpecError: DATA: at least one file or dataset; got none"),
        ([], [], "InputError: list of texts: at least one row; got none"),
        (["a b", None], None, "InputError: list of texts, item 2: every item must be text; got NoneType (None)"),
        (["a b", 3], None, "InputError: list of texts, item 2: every item must be text; got int (3)"),
        (["a b", " "], None, "InputError: list of texts, row 2, column 'text': text must not be empty; got ' '"),
        ([b"a"], None, "InputError: list of texts, item 1: every item must be text; got bytes (b'a')"),
        (["a b"], [1, 2], "InputError: list of texts, column 'label': 1 values, one for each row; got 2"),
        (["a b"], "x", "InputError: list of texts, column 'label': 1 values, one for each row; got str"),
        (["a b"], 1, "InputError: list of texts, column 'label': 1 values, one for each row; got int"),
        (["a b"], np.eye(1), "InputError: list of texts, column 'label': 1 values, one for each row; got shape (1, 1)"),
        (
            ["a b", "c"],
            [1, "x"],
            "InputError: list of texts, column 'label': one type per column; got numbers in row 1",
        ),
        (["a b"], {"text": ["x"]}, "InputError: labels: columns beside the texts, which are the column 'text'"),
        ("a.csv", [1], "SpecError: labels: go with a list of texts; other data have them in a column"),
        (["a.csv", "a b"], None, "SpecError: data: a list has either files or texts"),
        (["good", "bad"], None, "SpecError: data: single words may be texts or names of datasets"),
        ({"a b"}, None, "InputError: data: files (.csv"),
        (3, None, "InputError: data: files (.csv"),
        (
            {"text": ["a"]},
            None,
            "InputError: data, 'text': a mapping has a Dataset or DataFrame for each split; got list",
        ),
        ({}, None, "InputError: data: at least one split; got none"),
        (FRAME.iloc[:0], None, "InputError: DataFrame: at least one row; got none"),
        (pd.DataFrame(), None, "InputError: DataFrame: at least one row; got none"),
        (
            FRAME.assign(text=["a", None, "b"]),
            None,
            "InputError: DataFrame, row 2, column 'text': text must not be empty",
        ),
        (
            FRAME.assign(y=[1, "x", 2]),
            None,
            "InputError: DataFrame, column 'y': one type per column; got numbers in row 1",
        ),
        (
            FRAME.rename(columns={"label": "n "}),
            None,
            "InputError: DataFrame: every column must have a name of its own",
        ),
        (FRAME.rename(columns={"label": "n"}), None, "InputError: DataFrame: every column must have a name of its own"),
        (
            FRAME.T.set_index([[1] * 5], append=True).T,
            None,
            "InputError: DataFrame: column names are text, of one level",
        ),
        (["a b"], ["\ud83d"], "InputError: list of texts, column 'label': text must have no NUL and no lone surrogate"),
    ],
)
def test_refused(data, labels, message):
    assert error_of(data, labels).startswith(message)


def test_datasets_and_their_splits():
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    dataset = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, -1]}, features=features)
    examples = read_examples(dataset)
    assert (examples.source, examples.columns["label"].tolist()) == ("Dataset", ["pos", ""])
    both = read_examples(datasets.DatasetDict({"train": dataset, "test": dataset}))
    assert both.columns["split"].tolist() == ["train", "train", "test", "test"]
    frames = read_examples({"train": FRAME, "test": FRAME})
    assert frames.columns["split"].tolist() == ["train"] * 3 + ["test"] * 3
    assert read_examples({"train": FRAME, "test": FRAME}, split="test").texts == FRAME["text"].tolist()
    assert error_of(dataset, split="train") == "SpecError: --split train: these data have no splits"
    assert error_of(dataset.to_iterable_dataset()).endswith("got IterableDataset")


@pytest.mark.parametrize(
    "name", ["csv", "json", "text", "parquet", "arrow", "imagefolder", "webdataset", "xml", "csv:a"]
)
def test_names_of_formats_are_no_datasets(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for ending in ("csv", "txt", "json", "parquet", "xml"):
        write(tmp_path, f"private.{ending}", "text\nsecret\n")
    assert error_of(name) == (
        f"InputError: {name}: name the file with its ending (.csv, .tsv, .jsonl, .parquet, .conll or .conllu), "
        "or a dataset of the hub (ORG/NAME); got the name of a kind of files"
    )


def test_class_labels_in_parquet(tmp_path):
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["neg", "pos"]),
            "tags": datasets.Sequence(datasets.ClassLabel(names=["O", "X"])),
            "number": datasets.Value("int64"),
        }
    )
    rows = {"text": ["a", "b", "c"], "label": [1, -1, None], "tags": [[0, 1], [-1], []], "number": [1, -1, 0]}
    dataset = datasets.Dataset.from_dict(rows, features=features)
    dataset.to_parquet(tmp_path / "a.parquet")
    examples = read_examples([tmp_path / "a.parquet"])
    assert examples.columns["label"].tolist() == ["pos", "", ""]
    assert examples.columns["tags"].tolist() == ['["O","X"]', '[""]', "[]"]
    assert examples.columns["number"].tolist() == [1, -1, 0]
    assert digests(examples) == digests(read_examples(dataset))


def test_codes_without_a_name_stay_numbers(tmp_path):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    dataset = datasets.Dataset.from_dict({"text": ["a"], "label": [1]}, features=features)
    dataset.to_parquet(tmp_path / "a.parquet")
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["a"], "label": [2]}, schema=table.schema), tmp_path / "b.parquet")
    assert read_examples([tmp_path / "b.parquet"]).columns["label"].tolist() == [2]
