"""Datasets of the hub: real ``datasets`` objects, and real failures without a network."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from probekit.errors import InputError, SpecError
from probekit.inputs.hub import HubId, load_hub
from tests.inputs.cases import examples_from_dataset_dict, write

datasets = pytest.importorskip("datasets")


def dataset(texts, labels, **columns):
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    features |= {name: datasets.Sequence(datasets.Value("int32")) for name in columns}
    rows = {"text": texts, "label": labels, **columns}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


@pytest.fixture
def reviews():
    return datasets.DatasetDict(
        {
            "train": dataset(["a", "b"], [1, 0]),
            "test": dataset(["c"], [None]),
            "unsupervised": dataset(["d"], [-1]),
        }
    )


def test_class_labels_become_names_and_splits_a_column(reviews):
    examples = examples_from_dataset_dict(reviews, "org/reviews")
    assert (examples.source, examples.text_column) == ("org/reviews", "text")
    assert examples.texts == ["a", "b", "c", "d"]
    assert examples.ids.tolist() == ["0", "1", "2", "3"]
    assert {name: values.tolist() for name, values in examples.columns.items()} == {
        "label": ["pos", "neg", "", ""],
        "split": ["train", "train", "test", "unsupervised"],
    }


def test_chosen_splits_come_in_the_order_asked_for(reviews):
    examples = examples_from_dataset_dict(reviews, "reviews", split="test, train,test")
    assert examples.texts == ["c", "a", "b"]
    assert examples.columns["split"].tolist() == ["test", "train", "train"]
    assert [*examples_from_dataset_dict(reviews, "reviews", split="train").columns] == ["label"]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("trian", "--split trian: the splits of reviews are train, test, unsupervised; did you mean 'train'?"),
        ("train,", "--split train,: the splits of reviews are train, test, unsupervised"),
        ("train[:9]", "--split train[:9]: the splits of reviews are train, test, unsupervised; did you mean 'train'?"),
    ],
)
def test_unknown_splits(reviews, split, message):
    with pytest.raises(SpecError) as caught:
        examples_from_dataset_dict(reviews, "reviews", split=split)
    assert str(caught.value) == message


def test_selected_rows_list_features_and_ids():
    rows = dataset(["a", "b", "c"], [0, 1, 0], vector=[[1], [2], [3]]).add_column("key", ["x", "y", "z"])
    examples = examples_from_dataset_dict(
        datasets.DatasetDict({"train": rows.select([2, 0])}), "reviews", text="text", id_column="key"
    )
    assert (examples.texts, examples.ids.tolist()) == (["c", "a"], ["z", "x"])
    assert {name: values.tolist() for name, values in examples.columns.items()} == {
        "label": ["neg", "neg"],
        "vector": ["[3]", "[1]"],
    }


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ({"text": ["a", ""]}, {}, "reviews, split 'train', row 2, column 'text': text must not be empty; got ''"),
        (
            {"text": ["a"]},
            {"text": "txt"},
            "reviews, split 'train', column 'txt': this split has text; did you mean 'text'?",
        ),
        ({"text": []}, {}, "reviews, split 'train': at least one row; got none"),
    ],
)
def test_refused_rows(rows, options, message):
    with pytest.raises(InputError) as caught:
        examples_from_dataset_dict(
            datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows)}), "reviews", **options
        )
    assert str(caught.value) == message


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder in which ``datasets`` finds datasets by their name, as it does on the hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


def make_folder(here):
    folder = here / "reviews"
    folder.mkdir()
    write(folder, "a.csv", "text,label\none,1\n")
    write(folder, "b.csv", "text,label\ntwo,2\n")
    configs = "- config_name: {0}\n  data_files: [{{split: train, path: {0}.csv}}]\n"
    write(folder, "README.md", "---\nconfigs:\n" + configs.format("a") + configs.format("b") + "---\n")


def test_a_configuration_is_loaded(here):
    make_folder(here)
    loaded = load_hub(HubId("reviews:b", "reviews", "b", None))
    examples = examples_from_dataset_dict(loaded, "reviews:b")
    assert (examples.texts, examples.columns["label"].tolist()) == (["two"], [2])


@pytest.mark.parametrize(("given", "config"), [("reviews", None), ("reviews:c", "c")])
def test_configurations_are_listed(here, given, config):
    make_folder(here)
    with pytest.raises(InputError) as caught:
        load_hub(HubId(given, "reviews", config, None))
    message = str(caught.value)
    assert message.startswith(
        f"{given}: neither a file here nor a dataset that can be loaded (ORG/NAME:CONFIG@REVISION); got "
    )
    assert "['a', 'b']" in message
    assert "\n" not in message


@pytest.mark.parametrize(("config", "suffix"), [(None, ""), ("small", ":small")])
def test_loading_scripts_are_not_run(here, config, suffix):
    (here / "scripted").mkdir()
    write(here / "scripted", "scripted.py", "raise SystemExit('this must not run')")
    with pytest.raises(InputError) as caught:
        load_hub(HubId(f"scripted{suffix}", "scripted", config, None))
    assert str(caught.value) == (
        f"scripted{suffix}: this dataset is a loading script, which is never run; "
        f"try scripted{suffix}@refs/convert/parquet"
    )


def test_offline_is_one_clear_line(tmp_path):
    code = (
        "from probekit.errors import InputError\nfrom probekit.inputs.read import read_examples\n"
        "try: read_examples(['no-such/dataset'])\nexcept InputError as error: print(error)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == (
        "no-such/dataset: neither a file here nor a dataset that can be loaded (ORG/NAME:CONFIG@REVISION); "
        "got Couldn't reach 'no-such/dataset' on the Hub (OfflineModeIsEnabled)\n"
    )


def test_neither_torch_nor_datasets_is_loaded_for_files(tmp_path):
    path = write(tmp_path, "a.csv", "text\na\n")
    code = (
        f"import sys\nfrom probekit.inputs.read import read_examples\nread_examples([{str(path)!r}])\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'h5py', 'typer'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
