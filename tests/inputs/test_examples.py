"""Sources, text and id columns, several files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from probekit.inputs.hub import HubId, parse_source
from probekit.inputs.read import read_examples
from tests.inputs.cases import error_of, write


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("body,Text", "Text"),
        ("content,text", "text"),
        ("REVIEW,sentence", "sentence"),
        ("utterance,review", "review"),
        ("label,body", "body"),
    ],
)
def test_text_column_is_found(tmp_path, header, found):
    words = header.split(",")
    cells = ",".join("1" if word == "label" else f"of {word}" for word in words)
    examples = read_examples([write(tmp_path, "a.csv", f"{header}\n{cells}\n")])
    assert (examples.text_column, examples.texts) == (found, [f"of {found}"])
    assert [*examples.columns] == [word for word in words if word != found]


def test_text_column_can_be_named(tmp_path):
    path = write(tmp_path, "a.csv", "text,other\na,b\n")
    examples = read_examples([path], text="other")
    assert (examples.texts, examples.columns["text"].tolist()) == (["b"], ["a"])


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("text\tlabel\na\t1\n", {"text": "txt"}, "column 'txt': this file has text, label; did you mean 'text'?"),
        ("text\tlabel\na\t1\n", {"text": "LABEL"}, "column 'LABEL': this file has text, label; did you mean 'label'?"),
        ("text\tlabel\na\t1\n", {"text": "zzz"}, "column 'zzz': this file has text, label"),
        ("text\tlabel\na\t1\n", {"id_column": "idx"}, "column 'idx': this file has text, label"),
        (
            "text\tlabel\na\t1\n",
            {"text": "label"},
            "column 'label': the text column must hold text; got whole numbers (int64)",
        ),
        ("text\ty\n1.5\t1\n", {}, "column 'text': the text column must hold text; got decimal numbers (float64)"),
        ("text\ty\ntrue\t1\n", {}, "column 'text': the text column must hold text; got true/false (bool)"),
        ("text\ty\nok\t1\n \t2\n", {}, "row 2 (line 3), column 'text': text must not be empty; got ' '"),
        (
            "text\tid\na\t1\nb\t\n",
            {},
            "row 2 (line 3), column 'id': an id must not be empty (--id can name another column, and --id "
            "none numbers the rows); got ''",
        ),
        (
            "text\tid\na\tx\nb\ty\nc\tx\n",
            {},
            "row 3 (line 4), column 'id': every id must occur once (--id can name another column, and --id "
            "none numbers the rows); "
            "got 'x', which a.tsv, row 1 (line 2) has",
        ),
    ],
)
def test_refused_columns_and_rows(tmp_path, content, options, message):
    path = write(tmp_path, "a.tsv", content)
    assert error_of(path, **options) == f"InputError: a.tsv, {message}"


def test_no_text_column_to_be_found(tmp_path):
    for content in ("a,b\nx,y\n", "a,b\n1,2\n"):
        assert error_of(write(tmp_path, "a.csv", content)) == (
            "InputError: a.csv: name the text column with --text; none of them is called text, sentence, content, "
            "review, utterance; got columns a, b"
        )


def test_nested_columns_are_no_text_and_no_ids(tmp_path):
    path = write(tmp_path, "a.jsonl", json.dumps({"text": {"a": 1}, "body": "b", "id": {"n": 1}}))
    assert error_of(path) == "InputError: a.jsonl, column 'text': the text column must hold text; got an object"
    assert error_of(path, text="body", id_column="id") == (
        "InputError: a.jsonl, column 'id': ids must be text or numbers; got an object"
    )
    examples = read_examples([path], text="body")
    assert (examples.texts, examples.ids.tolist(), dict(examples.columns)) == (["b"], ["0"], {})


def test_row_of_a_quoted_line_end_is_named_by_its_first_line(tmp_path):
    path = write(tmp_path, "a.csv", 'text,y\n"a\nb",1\n"\n",2\n')
    assert error_of(path) == "InputError: a.csv, row 2 (line 4), column 'text': text must not be empty; got '\\n'"


def test_ids(tmp_path):
    path = write(tmp_path, "a.csv", "text,id,doc\na,007,x\nb,12,y\n")
    examples = read_examples([path])
    assert examples.ids.tolist() == ["007", "12"]
    assert examples.ids.dtype == object
    assert [*examples.columns] == ["doc"]
    examples = read_examples([path], id_column="doc")
    assert (examples.ids.tolist(), [*examples.columns]) == (["x", "y"], ["id"])
    assert read_examples([path], text="text", id_column="text").ids.tolist() == ["a", "b"]
    path = write(tmp_path, "a.jsonl", '{"text": "a", "id": 1}\n{"text": "b", "id": 2}')
    assert read_examples([path]).ids.tolist() == ["1", "2"]
    path = write(tmp_path, "b.jsonl", '{"text": "a", "id": 1}\n{"text": "b", "id": null}')
    assert error_of(path) == (
        "InputError: b.jsonl, row 2, column 'id': an id must not be empty "
        "(--id can name another column, and --id none numbers the rows); got ''"
    )


def test_several_files(tmp_path):
    train = write(tmp_path, "train.csv", "text,y\na,1\nb,2\n")
    test = write(tmp_path, "test.tsv", "y\ttext\n2.5\tc\n")
    examples = read_examples([train, test])
    assert examples.source == "train.csv, test.tsv"
    assert examples.texts == ["a", "b", "c"]
    assert examples.ids.tolist() == ["0", "1", "2"]
    np.testing.assert_array_equal(examples.columns["y"], [1.0, 2.0, 2.5])
    assert examples.columns["split"].tolist() == ["train", "train", "test"]


def test_type_is_that_of_all_files_together(tmp_path):
    one = write(tmp_path, "one.csv", "text,y\na,1\n")
    two = write(tmp_path, "two.csv", "text,y\nb,x\n")
    assert read_examples([one, two]).columns["y"].tolist() == ["1", "x"]
    none = write(tmp_path, "none.jsonl", '{"text": "c", "y": null}')
    column = read_examples([one, none]).columns["y"]
    np.testing.assert_array_equal(column, [1.0, np.nan])
    number = write(tmp_path, "number.jsonl", '{"text": "c", "y": 3}\n{"text": "d", "y": 0.5}')
    np.testing.assert_array_equal(read_examples([one, number]).columns["y"], [1.0, 3.0, 0.5])
    assert error_of(two, number) == (
        "InputError: number.jsonl, row 1, column 'y': one type per column, and two.csv, row 1 (line 2) has text; "
        "got a number (3.0)"
    )


def test_split_column_of_the_data_is_kept(tmp_path):
    one = write(tmp_path, "one.csv", "text,split\na,train\n")
    two = write(tmp_path, "two.csv", "text,split\nb,dev\n")
    examples = read_examples([one, two])
    assert {name: values.tolist() for name, values in examples.columns.items()} == {
        "split": ["train", "dev"],
        "source_file": ["one", "two"],
    }
    assert [*read_examples([one]).columns] == ["split"]
    three = write(tmp_path, "three.csv", "text,split,source_file\na,train,x\n")
    assert read_examples([three, three]).columns["source_file"].tolist() == ["x", "x"]


def test_several_files_need_the_same_columns(tmp_path):
    one = write(tmp_path, "one.csv", "text,label\na,1\n")
    two = write(tmp_path, "two.csv", "text,lable\na,1\n")
    three = write(tmp_path, "three.csv", "text,label,note\na,1,n\n")
    assert error_of(one, two) == "InputError: two.csv: the same columns as one.csv; got no 'label', 'lable' besides"
    assert error_of(one, three) == "InputError: three.csv: the same columns as one.csv; got 'note' besides"
    assert error_of(three, one) == "InputError: one.csv: the same columns as three.csv; got no 'note'"


def test_ids_and_rows_of_several_files(tmp_path):
    one = write(tmp_path, "one.csv", "text,id\na,1\nb,2\n")
    two = write(tmp_path, "two.csv", "text,id\na,3\nb,2\n")
    examples = read_examples([one, two])
    assert examples.ids.tolist() == ["one/1", "one/2", "two/3", "two/2"]
    assert examples.notes[0] == (
        "ids of column 'id' occur in more than one file and have its name before them: 'one/1', 'two/3', …"
    )


def test_nested_in_one_file_is_left_out(tmp_path):
    one = write(tmp_path, "one.jsonl", '{"text": "a", "x": null}')
    two = write(tmp_path, "two.jsonl", '{"text": "b", "x": {"deep": 1}}')
    assert [*read_examples([one, two]).columns] == ["split"]


def test_which_file_is_asked_for(tmp_path, monkeypatch):
    write(tmp_path, "train.tsv", "text\na\n")
    monkeypatch.chdir(tmp_path)
    assert error_of("trian.tsv") == "InputError: trian.tsv: there is no such file; did you mean 'train.tsv'?"
    assert error_of("./zzz.csv") == "InputError: zzz.csv: there is no such file"
    assert error_of("no/such/a.csv") == "InputError: no/such/a.csv: there is no such file, nor a folder 'no/such'"
    assert error_of("x" * 5000 + ".csv").endswith(": there is no such file")
    assert error_of("~nosuchuser/a.csv").startswith("InputError: ~nosuchuser/a.csv: there is no such file")
    assert error_of(tmp_path) == (
        f"InputError: {tmp_path}: a data file, ending in .csv, .tsv, .jsonl, .parquet, .conll or .conllu; "
        "got a folder with train.tsv"
    )
    (tmp_path / "empty").mkdir()
    assert error_of("empty").endswith("got a folder")
    write(tmp_path, "notes.txt", "text\na\n")
    assert error_of("notes.txt") == (
        "InputError: notes.txt: data files end in .csv, .tsv, .jsonl, .parquet, .conll or .conllu; got '.txt'"
    )
    for number in range(6):
        write(tmp_path / "empty", f"{number}.csv", "")
    assert error_of("empty").endswith("got a folder with 0.csv, 1.csv, 2.csv, 3.csv, 4.csv and 1 more")


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs a file that can be opened and not read")
def test_file_that_cannot_be_read(tmp_path):
    (tmp_path / "a.csv").symlink_to("/proc/self/mem")
    assert (
        error_of(tmp_path / "a.csv")
        == f"InputError: {tmp_path / 'a.csv'}: a file that can be read; got Input/output error"
    )


def test_options_that_do_not_fit(tmp_path):
    path = write(tmp_path, "a.csv", "text\na\n")
    assert error_of(path, split="train") == (
        "SpecError: --split train: only hub datasets have splits; of local files, say which part each is, as in "
        "a=train,b=test"
    )
    assert error_of() == "SpecError: DATA: at least one file or dataset; got none"


def test_one_source_as_text(tmp_path):
    path = write(tmp_path, "a.csv", "text\na\n")
    assert read_examples(str(path)).source == "a.csv"


@pytest.mark.parametrize(
    "source", ["a.csv", "data/A.TSV", "./imdb", "../imdb", "/imdb", "~/imdb", "a/b/c", "my data", Path("imdb"), "C:/a"]
)
def test_files(source):
    assert isinstance(parse_source(source), Path)


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("imdb", ("imdb", None, None)),
        ("stanfordnlp/imdb", ("stanfordnlp/imdb", None, None)),
        ("glue:sst2", ("glue", "sst2", None)),
        ("nyu-mll/glue:sst2@v1", ("nyu-mll/glue", "sst2", "v1")),
        ("org/name@refs/convert/parquet", ("org/name", None, "refs/convert/parquet")),
    ],
)
def test_hub_ids(source, parts):
    assert parse_source(source) == HubId(source, *parts)


def test_what_exists_is_a_file(tmp_path, monkeypatch):
    (tmp_path / "imdb").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_source("imdb") == Path("imdb")
