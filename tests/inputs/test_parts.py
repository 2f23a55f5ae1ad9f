"""Parts by the names of files, folders and splits; ids that restart in each of them."""

from __future__ import annotations

import pytest

from probekit.inputs import read_examples
from probekit.inputs.parts import part_named
from tests.inputs.cases import error_of, examples_from_dataset_dict, write

datasets = pytest.importorskip("datasets")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train-00000-of-00002", "train"),
        ("reviews_train", "train"),
        ("validation_matched", "validation"),
        ("test_mismatched", "test"),
        ("sst2-dev", "dev"),
        ("my.test", "test"),
        ("reviewsTrain", "train"),
        ("testset", "test"),
        ("newstest2013", None),
        ("test2013", "test"),
        ("TRAIN_0", "train"),
        ("train[:50%]", "train"),
        ("train_test", None),
        ("latest", None),
        ("trained", None),
        ("invalid", None),
        ("ütest", None),
        ("", None),
    ],
)
def test_a_word_of_the_name_says_the_part(name, part):
    assert part_named(name) == part


def write_all(folder, paths, ids=False):
    written = []
    for number, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        rows = f"id,text\n0,a{number}\n1,b{number}\n" if ids else f"text\na{number}\nb{number}\n"
        written.append(write(folder, path, rows))
    return written


@pytest.mark.parametrize(
    ("paths", "parts"),
    [
        (["train.csv", "dev.csv", "test.csv"], ["train", "dev", "test"]),
        (["Train.csv", "val.csv"], ["Train", "val"]),
        (["reviews_train.csv", "reviews-test.csv"], ["train", "test"]),
        (["train/data.csv", "test/data.csv"], ["train", "test"]),
        (["train/a.csv", "test/b.csv"], ["train", "test"]),
        (["x_train/0000.csv", "validation/0000.csv"], ["train", "validation"]),
        (["train/test.csv", "test/test.csv"], ["train", "test"]),
        (["train-00000-of-00001.csv", "unsupervised-00000-of-00001.csv"], ["train", "unsupervised"]),
        # Where not all names say a part, or none says train, they stay.
        (["train_a.csv", "other.csv"], ["train_a", "other"]),
        (["amazon_test.csv", "imdb_test.csv"], ["amazon_test", "imdb_test"]),
        (["en/data.csv", "de/data.csv"], ["data", "data"]),
        (["test_drive/a_train.csv", "test_drive/b.csv"], ["a_train", "b"]),
        (["train/a.csv", "train/b.csv"], ["a", "b"]),
        (["train/a.csv", "b.csv"], ["a", "b"]),
    ],
)
def test_parts_of_files(tmp_path, paths, parts):
    columns = read_examples(write_all(tmp_path, paths)).columns
    assert columns["split"].tolist() == [part for part in parts for _ in range(2)]
    assert [*columns] == ["split"]


def test_files_of_one_part_can_still_be_told_apart(tmp_path):
    paths = write_all(tmp_path, ["train-0-of-2.csv", "train-1-of-2.csv", "test-0-of-1.csv"])
    columns = read_examples(paths).columns
    assert columns["split"].tolist() == ["train"] * 4 + ["test"] * 2
    assert columns["source_file"].tolist()[::2] == ["train-0-of-2", "train-1-of-2", "test-0-of-1"]


def test_what_is_found_and_what_is_unknown_is_said(tmp_path):
    assert read_examples(write_all(tmp_path, ["train.csv", "test.csv"])).notes == ()
    found = read_examples(write_all(tmp_path, ["a_train.csv", "a_test.csv"])).notes
    assert len(found) == 1
    assert found[0].startswith("column 'split' has the parts that the names say: train (")
    assert read_examples(write_all(tmp_path, ["spam.csv", "ham.csv"])).notes == (
        "column 'split' has 'spam', 'ham', no name of a part (train, dev, test): say which part is which "
        "(--split spam=train,…), or probe with --split 0.2",
    )


def test_parts_can_be_named(tmp_path):
    one, two = write_all(tmp_path, ["spam.csv", "my.ham.csv"])
    for split in ("spam=train,my.ham=test", "spam.csv=train, my.ham.csv=test", {"spam": "train", str(two): "test"}):
        examples = read_examples([one, two], split=split)
        assert (examples.columns["split"].tolist(), examples.notes) == (["train", "train", "test", "test"], ())
    assert read_examples([one], split="spam=test").columns["split"].tolist() == ["test", "test"]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("spam=train", "names the part of each file once, as in ham=train; got nothing for ham.csv"),
        ("spam=train,ham=tset", f"a part is one of {'train, training, dev, development, val, valid, validation'}"),
        ("spam=train,ham=test,eggs=dev", "the names here are spam, ham; got eggs"),
        ("spam=train,spam=dev", "every file is named once, as in a=train,b=test; got 'spam'"),
        ("=train", "every file is named once, as in a=train,b=test; got ''"),
        ("ham=train,spam=test,ham.csv=test", "names the part of each file once, as in ham=train; got ham and ham.csv"),
    ],
)
def test_parts_named_wrongly(tmp_path, split, message):
    found = error_of(*write_all(tmp_path, ["spam.csv", "ham.csv"]), split=split)
    assert found.startswith(f"SpecError: --split {split}: {message}")


def test_parts_named_beside_a_column_of_them(tmp_path):
    path = write(tmp_path, "a.csv", "text,split\na,train\n")
    assert error_of(path, split="a=train") == (
        "SpecError: --split: names parts where the data name none; got data with a column 'split'"
    )


def test_splits_of_a_dataset():
    one = datasets.Dataset.from_dict({"text": ["a"], "id": ["0"]})
    several = datasets.DatasetDict({"train": one, "validation_matched": one, "validation_mismatched": one})
    examples = examples_from_dataset_dict(several, "mnli")
    assert examples.columns["split"].tolist() == ["train", "validation", "validation"]
    assert examples.columns["source_file"].tolist() == [*several]
    assert examples.ids.tolist() == ["train/0", "validation_matched/0", "validation_mismatched/0"]
    chosen = read_examples(several, split={"train": "train", "validation_matched": "test"})
    assert chosen.columns["split"].tolist() == ["train", "test"]


@pytest.mark.parametrize(
    ("paths", "ids"),
    [
        (["train.csv", "test.csv"], ["train/0", "train/1", "test/0", "test/1"]),
        (["a_train.csv", "a_test.csv"], ["train/0", "train/1", "test/0", "test/1"]),
        (["train-0.csv", "train-1.csv"], ["train-0/0", "train-0/1", "train-1/0", "train-1/1"]),
        (["en/x.csv", "de/x.csv"], ["en/x/0", "en/x/1", "de/x/0", "de/x/1"]),
        (["a/en/x.csv", "b/en/x.csv"], ["1:x/0", "1:x/1", "2:x/0", "2:x/1"]),
    ],
)
def test_ids_that_restart(tmp_path, paths, ids):
    examples = read_examples(write_all(tmp_path, paths, ids=True))
    assert examples.ids.tolist() == ids
    assert examples.notes[0].startswith("ids of column 'id' occur in more than one file and have its name before them")


def test_ids_that_do_not_restart_stay(tmp_path):
    one = write(tmp_path, "one.csv", "id,text\n0,a\n1,b\n")
    two = write(tmp_path, "two.csv", "id,text\n2,a\n3,b\n")
    assert read_examples([one, two]).ids.tolist() == ["0", "1", "2", "3"]


def test_the_id_column_can_be_named_or_left(tmp_path):
    path = write(tmp_path, "a.csv", "id,text,key\n7,a,x\n7,b,y\n")
    assert "row 2 (line 3), column 'id': every id must occur once (--id can name another column" in error_of(path)
    examples = read_examples([path], id_column="key")
    assert (examples.ids.tolist(), [*examples.columns]) == (["x", "y"], ["id"])
    for none in ("none", ""):
        examples = read_examples([path], id_column=none)
        assert (examples.ids.tolist(), [*examples.columns]) == (["0", "1"], ["id", "key"])
    named = write(tmp_path, "b.csv", "none,text\nx,a\n")
    assert read_examples([named], id_column="none").ids.tolist() == ["x"]


def test_files_of_one_name_are_named_with_their_folder(tmp_path):
    paths = write_all(tmp_path, ["train/x.csv", "test/x.csv"])
    write(tmp_path, "test/x.csv", "text\n \n")
    assert error_of(*paths).startswith("InputError: test/x.csv, row 1 (line 2), column 'text'")
