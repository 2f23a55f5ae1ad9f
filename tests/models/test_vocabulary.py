"""A tokenizer goes with its model and the texts, or the user is told: before the run, and at prediction too."""

from __future__ import annotations

import shutil

import pytest

from probekit import extract, predict
from probekit.cli import run
from probekit.errors import InputError
from probekit.models import locate
from probekit.models.tokens import encode, load_tokenizer
from probekit.models.vocabulary import check_tokens
from tests.tiny import save_tiny_data


class Notes:
    def __init__(self):
        self.texts = []

    def stage(self, name, *, total, unit): ...

    def advance(self, done): ...

    def note(self, text):
        self.texts.append(text)


@pytest.fixture
def folder(tmp_path, tiny_model):
    return shutil.copytree(tiny_model, tmp_path / "m")


def save_texts(path, texts):
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{i % 2}\n" for i, text in enumerate(texts)))
    return path


def add_tokens(folder, *tokens):
    tokenizer = load_tokenizer(locate(folder))
    tokenizer.add_tokens(list(tokens))
    tokenizer.save_pretrained(folder)


def notes_of(folder, tmp_path, texts, **how):
    heard = Notes()
    with extract(folder, save_texts(tmp_path / "t.tsv", texts), out=tmp_path / "c.h5", listener=heard, **how):
        return [text for text in heard.texts if "batches" not in text]


def test_a_token_beyond_the_models_table_is_named_with_its_row(folder, tmp_path):
    add_tokens(folder, "[ENT]", "[LOC]")
    texts = ["good film", "bad plot", "a dull [LOC] film"]
    message = r"t\.tsv, example 2: the model has embeddings for tokens 0\.\.13; got 15 \('\[LOC\]'\)$"
    with pytest.raises(InputError, match=message):
        notes_of(folder, tmp_path, texts)
    assert not (tmp_path / "c.h5").exists()
    assert not (tmp_path / "c.h5.partial").exists()
    assert notes_of(folder, tmp_path, texts[:2]) == []  # tokens that no text has do no harm


def test_a_token_that_truncation_cuts_off_is_none(folder, tmp_path):
    add_tokens(folder, "[ENT]")
    notes = notes_of(folder, tmp_path, ["good film", "a dull film [ENT]"], max_length=5)
    assert notes == ["1 text is longer than 5 tokens and cut"]


def test_in_a_prompt_it_is_found_as_well(folder, tmp_path):
    add_tokens(folder, "[ENT]")
    with pytest.raises(InputError, match="example 0: the model has embeddings for tokens"):
        notes_of(folder, tmp_path, ["good film", "bad plot"], prompt="[ENT] {text}")


def test_prediction_says_so_too(tmp_path, tiny_model):
    folder = shutil.copytree(tiny_model, tmp_path / "m")
    add_tokens(folder, "[ENT]")
    cache = extract(folder, save_tiny_data(tmp_path / "train.tsv"), out=tmp_path / "c.h5")
    cache.close()
    assert (
        run(["probe", str(cache.path), "--target", "label", "--save-probes", str(tmp_path / "h"), "--jobs", "1"]) == 0
    )
    (saved,) = (tmp_path / "h").glob("*.skops")
    heard = Notes()
    predict(saved, ["good zebra", "xylophone"], model=folder, listener=heard)
    assert heard.texts == [UNKNOWN.format(share="67%")]
    with pytest.raises(InputError, match=r"^text 2: the model has embeddings for tokens 0\.\.13; got 14"):
        predict(saved, ["good", "good [ENT]"], model=folder)


UNKNOWN = "{share} of the texts' tokens are unknown to the tokenizer ([UNK]): it may not fit the texts or the model"


@pytest.mark.parametrize(
    ("texts", "notes"),
    [
        (["good film", "bad plot"], []),
        (["good film plot actor a the very fine bad", "dull unheard"], []),  # 1 of 11
        (["good film", "bad unheard"], [UNKNOWN.format(share="25%")]),
        (["gut", "schlecht"], [UNKNOWN.format(share="100%")]),
        (["good film", "\u00a0"], ["1 text has no token of its own"]),
        (["[SEP]", "[CLS] [PAD]", "good"], ["2 texts have no token of their own and are read as special tokens alone"]),
    ],
    ids=["known", "1 of 11 unknown", "1 of 4", "another language", "a blank that the tokenizer drops", "special"],
)
def test_what_is_said(folder, tmp_path, texts, notes):
    tokenizer = load_tokenizer(locate(folder))
    names = [str(i) for i in range(len(texts))]
    encoded = encode(tokenizer, texts, max_length=32, ids=names)
    found = list(check_tokens(encoded, tokenizer, size=14, texts=texts, names=names))
    assert len(found) == len(notes)
    assert all(text.startswith(note) for text, note in zip(found, notes, strict=True)), found


def test_the_tokenizer_of_a_smaller_model(folder, tmp_path):
    tokenizer = load_tokenizer(locate(folder))
    encoded = encode(tokenizer, ["good film"], max_length=32, ids=["0"])
    assert list(check_tokens(encoded, tokenizer, size=20, texts=["good film"], names=["0"])) == []
    assert list(check_tokens(encoded, tokenizer, size=None, texts=["good film"], names=["0"])) == []
    (note,) = check_tokens(encoded, tokenizer, size=30_000, texts=["good film"], names=["0"])
    assert note == "the tokenizer knows 14 tokens, the model 30,000: it may be another model's"


def test_characters_that_are_in_no_token_are_said(tmp_path, folder):
    """A vocabulary of Latin letters without an unknown token drops all others and says nothing of it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {letter: i for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
    latin = Tokenizer(models.BPE(vocab=letters, merges=[]))
    latin.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=latin)

    def notes(texts):
        encoded = encode(tokenizer, texts, max_length=32, ids=[str(i) for i in range(len(texts))])
        names = [str(i) for i in range(len(texts))]
        return list(check_tokens(encoded, tokenizer, size=None, texts=texts, names=names))

    assert notes(["good film", "bad plot"]) == []
    (note,) = notes(["good фильм", "bad plot"])  # 5 of 16
    assert note.startswith("31% of the texts' characters are in no token")


def test_the_pieces_of_a_long_text_are_counted_once_each(folder, tmp_path):
    heard = notes_of(folder, tmp_path, ["good film " * 30, "bad plot"], max_length=8, stride=2, tokens=True)
    assert heard == []
