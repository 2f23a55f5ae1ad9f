"""CoNLL files."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.inputs.read import read_examples
from tests.inputs.cases import DATA, error_of, write


def read(folder, content, name="a.conll"):
    return read_examples([write(folder, name, content)])


def lists(examples):
    """The tag columns, decoded."""
    return {
        name: [json.loads(cell) for cell in column]
        for name, column in examples.columns.items()
        if name not in ("document", "split")
    }


@pytest.mark.parametrize("separator", ["\t", " ", "   "])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_words_and_tags(tmp_path, separator, end):
    rows = [f"New{separator}B-loc", f"York{separator}I-loc", "", "ok" + separator + "O", ""]
    examples = read(tmp_path, b"\xef\xbb\xbf" + end.join(rows).encode())
    assert (examples.text_column, examples.texts) == ("tokens", ["New York", "ok"])
    assert examples.words == [["New", "York"], ["ok"]]
    assert examples.ids.tolist() == ["0", "1"]
    assert lists(examples) == {"ner": [["B-loc", "I-loc"], ["O"]]}


def test_fields(tmp_path):
    assert read(tmp_path, "New York\tB-loc\nu\u00a0v\tO\n").words == [["New York", "u\u00a0v"]]
    examples = read(tmp_path, " u\u00a0v  X \nw\tx Y\n")
    assert (examples.words, lists(examples)) == ([["u\u00a0v", "w\tx"]], {"tags": [["X", "Y"]]})


@pytest.mark.parametrize("blank", ["", "\t", " ", "\n\t\n\n"])
def test_blank_lines_end_sentences(tmp_path, blank):
    assert read(tmp_path, f"{blank}\na\tO\n{blank}\nb\tO\n{blank}\n").words == [["a"], ["b"]]


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("a O", ["ner"]),
        ("a S-person", ["ner"]),
        ("a B-", ["tags"]),
        ("a X-person", ["tags"]),
        ("a b O", ["column_2", "ner"]),
        ("a b c", ["column_2", "tags"]),
        ("a NN B-NP ?", ["pos", "chunk", "ner"]),
        ("a b c d e", ["column_2", "column_3", "column_4", "tags"]),
        (" ".join("abcdefghij"), [*(f"column_{number}" for number in range(2, 10)), "tags"]),
    ],
)
def test_column_names(tmp_path, line, names):
    examples = read(tmp_path, line + "\n")
    assert lists(examples) == {name: [[field]] for name, field in zip(names, line.split(" ")[1:], strict=True)}


def test_all_tags_decide_on_the_name(tmp_path):
    assert [*lists(read(tmp_path, "a O\n\nb NN\n"))] == ["tags"]


def test_documents(tmp_path):
    text = "-DOCSTART- -X- O O\n\na NN B-NP O\n-DOCSTART- -X- O O\nb NN B-NP O\n\nc NN B-NP O\n"
    one = write(tmp_path, "one.conll", text)
    two = write(tmp_path, "two.conll", "z NN B-NP O\n\n" + text)
    examples = read_examples([one, two])
    assert examples.texts == ["a", "b", "c", "z", "a", "b", "c"]
    documents = ["one#1", "one#2", "one#2", "two#0", "two#1", "two#2", "two#2"]
    assert examples.columns["document"].tolist() == documents
    assert [*examples.columns] == ["pos", "chunk", "ner", "document", "split"]
    assert read(tmp_path, "-DOCSTART- -X- O\n\na b\tO\n").columns["document"].tolist() == ["a#1"]
    assert "document" not in read(tmp_path, "-DOCSTART-x O\n").columns


@pytest.mark.parametrize("comment", ["# a long comment", "# newpar", "# text = a", "# newpar id = 3"])
@pytest.mark.parametrize("separator", [" ", "\t"])
def test_comments(tmp_path, comment, separator):
    line = f"a{separator}O\n"
    assert read(tmp_path, f"{comment}\n{line}\n{comment}\n{comment}\n{line}").words == [["a"], ["a"]]


def test_words_that_look_like_comments(tmp_path):
    words = [["#", "1"], ["#tag", "#"]]
    for separator in "\t ":
        sentences = ["".join(f"{word}{separator}O\n" for word in sentence) for sentence in words]
        assert read(tmp_path, "\n".join(sentences)).words == words
    assert read(tmp_path, "# O\n").words == [["#"]]
    assert read(tmp_path, "# text = 1\tO\nof\tO\n").words == [["# text = 1", "of"]]
    found = error_of(write(tmp_path, "a.conll", "a O\n# no comment\n"))
    assert found == (
        "InputError: a.conll, line 2: every word's line must have 2 fields separated by spaces, as line 1 has; got 3"
    )
    assert error_of(write(tmp_path, "a.conll", "a O\n\n#no comment O\n")).startswith("InputError: a.conll, line 3: ")


def test_sentence_ids(tmp_path):
    text = "# sent_id = x 1\n# note on it\na NN B-NP O\n\n# sent_id = x2\nb NN B-NP O\n"
    assert read(tmp_path, text).ids.tolist() == ["x 1", "x2"]
    for more in ("\nc NN B-NP O\n", "\n# sent_id = x3\n\nc NN B-NP O\n"):
        examples = read(tmp_path, text + more)
        assert examples.ids.tolist() == ["0", "1", "2"]
        assert "id" not in examples.columns


UNIVERSAL = """\
# newdoc id = weblog 7
# sent_id = w-1
# text = vámonos ya
1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tvamos\tir\tVERB\tv\tMood=Ind\t0\troot\t0:root\tmisc
2\tnos\tnosotros\tPRON\tp\t_\t1\tobj\t1:obj\t_
2.1\tse\t_\t_\t_\t_\t_\t_\t1:x\t_
#comment
3\tNew York\tya\tADV\tr\t_\t1\tadvmod\t1:advmod\t_

# sent_id = w-2
1\t#\t#\tSYM\t#\t_\t0\troot\t0:root\t_

# newdoc
# sent_id = w-3
1\tok\tok\tINTJ\t_\t_\t0\troot\t0:root\t_
"""


@pytest.mark.parametrize("name", ["a.conllu", "a.conll", "a.CONLLU"])
def test_universal(tmp_path, name):
    examples = read(tmp_path, UNIVERSAL, name)
    assert examples.words == [["vamos", "nos", "New York"], ["#"], ["ok"]]
    assert examples.ids.tolist() == ["w-1", "w-2", "w-3"]
    assert examples.columns["document"].tolist() == ["weblog 7", "weblog 7", "a#2"]
    assert [*lists(examples)] == ["lemma", "upos", "xpos", "feats", "head", "deprel", "deps"]
    assert {name: rows[0] for name, rows in lists(examples).items()} == {
        "lemma": ["ir", "nosotros", "ya"],
        "upos": ["VERB", "PRON", "ADV"],
        "xpos": ["v", "p", "r"],
        "feats": ["Mood=Ind", "_", "_"],
        "head": ["0", "1", "1"],
        "deprel": ["root", "obj", "advmod"],
        "deps": ["0:root", "1:obj", "1:advmod"],
    }


def test_ten_columns_of_another_kind(tmp_path):
    line = "\t".join(["w", *"bcdefghij"])
    assert read(tmp_path, f"{line}\n").words == [["w"]]
    assert error_of(write(tmp_path, "a.conllu", f"{line}\n")) == (
        "InputError: a.conllu, line 1: a CoNLL-U line begins with the word's number; got 'w'"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ": at least one sentence; got none"),
        ("\n \n", ": at least one sentence; got none"),
        ("-DOCSTART- O\n", ": at least one sentence; got none"),
        ("\na\nb\n", ", line 2: a word and its tags, separated by tabs or spaces; got only 'a'"),
        (
            "\na\tO\nb O\n",
            ", line 3: every word's line must have 2 fields separated by tabs, as line 2 has; got 1",
        ),
        ("a\tO\n\tO\n", ", line 2: a word must not be empty; got ''"),
        ("a\tO\n \tO\n", ", line 2: a word must not be empty; got ' '"),
        ("\u00a0 O\n", ", line 1: a word must not be empty; got '\\xa0'"),
        ("a\xff O\n".encode("latin-1"), ", line 1, byte 2: the file must be UTF-8 text; got byte 0xff"),
    ],
)
def test_refused(tmp_path, content, message):
    assert error_of(write(tmp_path, "a.conll", content)) == f"InputError: a.conll{message}"


def test_refused_universal(tmp_path):
    assert error_of(write(tmp_path, "a.CONLLU", "# c\n1 a O\n")) == (
        "InputError: a.CONLLU, line 2: every word's line must have 10 fields separated by tabs; got 1"
    )
    assert error_of(write(tmp_path, "a.conllu", "# c\n")) == "InputError: a.conllu: at least one sentence; got none"


def test_rows_are_named_by_the_line_of_their_first_word(tmp_path):
    path = write(tmp_path, "a.conll", "\n# sent_id = 1\na b O\n\n-DOCSTART-\n\n# sent_id = 1\na b O\n")
    assert error_of(path) == (
        "InputError: a.conll, row 2 (line 8), column 'id': every id must occur once "
        "(--id can name another column, and --id none numbers the rows); "
        "got '1', which a.conll, row 1 (line 3) has"
    )


@pytest.mark.skipif(
    not (DATA / "wnut17").is_dir(), reason="WNUT-17 (../shared/data/wnut17) is not beside this checkout"
)
def test_wnut17():
    examples = read_examples([DATA / "wnut17" / f"{part}.conll" for part in ("train", "dev", "test")])
    splits = examples.columns["split"].tolist()
    assert [splits.count(part) for part in ("train", "dev", "test")] == [3394, 1009, 1287]
    assert sum(map(len, examples.words[:3394])) == 62_730
    assert [*examples.columns] == ["ner", "split"]
    pairs = [
        (word, tag)
        for words, tags in zip(examples.words, lists(examples)["ner"], strict=True)
        for word, tag in zip(words, tags, strict=True)
    ]
    files = [(DATA / "wnut17" / f"{part}.conll").read_text(encoding="utf-8") for part in ("train", "dev", "test")]
    lines = [line for file in files for line in file.split("\n") if line.strip()]
    assert [f"{word}\t{tag}" for word, tag in pairs] == lines


# U+FEFF at the beginning of a file is a byte order mark.
characters = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff")
tab_words = st.text(characters, min_size=1).filter(str.strip)
space_words = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zs"], exclude_characters="\ufeff"), min_size=1
).filter(str.strip)
tags = st.text("BIO-xyz", min_size=1)


def sentences(words):
    sentence = st.lists(st.tuples(words, tags), min_size=1, max_size=5)
    return st.lists(sentence, min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.tuples(st.just("\t"), sentences(tab_words)),
        st.tuples(st.just(" "), sentences(space_words)),
        # Hashes, which begin comments, are rare among all characters.
        st.tuples(st.just(" "), sentences(st.text("#a", min_size=1))),
    )
)
def test_round_trip(written):
    separator, data = written
    text = "\n\n".join("\n".join(f"{word}{separator}{tag}" for word, tag in sentence) for sentence in data)
    with tempfile.TemporaryDirectory() as folder:
        examples = read(Path(folder), text)
    assert examples.words == [[word for word, _ in sentence] for sentence in data]
    assert [*lists(examples).values()] == [[[tag for _, tag in sentence] for sentence in data]]
    assert examples.texts == [" ".join(word for word, _ in sentence) for sentence in data]
