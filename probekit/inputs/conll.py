"""CoNLL files: a word and its tags on every line, a blank line after every sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from numpy.typing import NDArray

from probekit.errors import InputError
from probekit.inputs.columns import list_texts, words
from probekit.inputs.plain_text import decode, split_lines
from probekit.inputs.table import Table

UNIVERSAL = ("lemma", "upos", "xpos", "feats", "head", "deprel", "deps")
"""The tag columns of CoNLL-U, between ID and FORM, and MISC."""

DOCUMENT = re.compile(r"-DOCSTART-(?:\s|$)")
NEW_DOCUMENT = re.compile(r"#\s*newdoc(?:\s+id\s*=\s*(?P<id>\S.*?))?\s*")
SENTENCE_ID = re.compile(r"#\s*sent_id\s*=\s*(?P<id>\S.*?)\s*")
# Between spaces these may have as many fields as a word line; none of them is a word "#" with such tags.
UNIVERSAL_COMMENT = re.compile(r"# (?:newdoc|newpar|newdoc id = .*|newpar id = .*|sent_id = .*|text = .*)")
WORD_ID = re.compile(r"[0-9]+")
SKIPPED_ID = re.compile(r"[0-9]+[-.][0-9]+")
CHUNK_TAG = re.compile(r"O|[BIESLU]-.+")


def read_conll(data: bytes, name: str) -> Table:
    """Every sentence is a row: the list column "tokens", a list column for each tag column, and what comments say.

    Fields are separated by tabs if the first word line has one, else by runs of spaces. A line of blanks ends a
    sentence, and so does ``-DOCSTART-``, which begins a document, as the comment ``# newdoc`` does; a file with either
    has a column "document" of the comments' ids, or else the file's name and a number (``train#1``). A column "id" has
    the comments' ``sent_id`` if all sentences have one. A line that begins with ``# `` is a comment if it stands before
    a sentence's words and has another number of fields than they, or (between spaces) is a comment of CoNLL-U's; else
    it is a word.

    The first column is the words. Of four, the others are "pos", "chunk" and "ner"; else the last is "ner" if all of it
    is chunk tags (``O``, ``B-person``), "tags" if not, and those between are "column_2", "column_3", ... In CoNLL-U
    (the ending .conllu, or ten columns and numbers in the first) the words are the column FORM, and the tag columns
    ``UNIVERSAL``; ranges (``1-2``) and empty nodes (``1.1``) are skipped: the syntactic words are the words.

    Raises ``InputError`` for a line with more or fewer fields than the first word line, one column only, an empty word,
    and a file without sentences; names the line.
    """
    lines = split_lines(decode(data, name))
    layout = _find_layout(lines, name)
    sentences = _read_sentences(lines, layout, name)
    if not sentences:
        raise InputError(name, "at least one sentence", "none")
    columns = _columns(sentences, layout)
    stem = PurePath(name).stem
    if any(sentence.document for sentence in sentences):
        columns["document"] = words([sentence.document or f"{stem}#0" for sentence in sentences])
    if all(sentence.id for sentence in sentences):
        columns["id"] = words([sentence.id for sentence in sentences])
    lists = {column: "text" for column in columns if column not in ("document", "id")}
    starts = [sentence.line for sentence in sentences]
    return Table(name, stem, "file", len(sentences), columns, {}, lists=lists, lines=starts)


@dataclass(frozen=True)
class Layout:
    """How word lines look; ``width``: their fields; ``first``: the number of the line that shows it, 0 for none."""

    first: int
    tabs: bool
    width: int
    universal: bool

    def split(self, line: str) -> list[str]:
        """The fields of a line, without blanks after the last and around tags, and without empty ones too many."""
        if not self.tabs:
            return re.split(" +", line.strip(" \t"))
        word, *tags = line.split("\t")
        fields = [word, *(tag.strip(" ") for tag in tags)]
        while len(fields) > max(self.width, 2) and not fields[-1]:
            fields.pop()
        return fields

    def is_comment(self, line: str, *, begins: bool) -> bool:
        """``begins``: whether the line stands before all words of its sentence."""
        if self.universal:
            return line.startswith("#")
        if not begins or not line.startswith("# "):
            return False
        return len(self.split(line)) != self.width or (not self.tabs and bool(UNIVERSAL_COMMENT.fullmatch(line)))


@dataclass(frozen=True)
class Sentence:
    """``line``: of its first word. ``rows``: its words' fields. ``id``, ``document``: by the comments before it."""

    line: int
    id: str | None
    document: str | None
    rows: list[list[str]] = field(default_factory=list)


def _find_layout(lines: Sequence[str], name: str) -> Layout:
    if PurePath(name).suffix.lower() == ".conllu":
        return Layout(0, tabs=True, width=10, universal=True)
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip() and not DOCUMENT.match(line)]
    # A line "# O" may be a word, so it decides only where there is no other.
    clear = [(number, line) for number, line in numbered if not line.startswith("# ")] or numbered
    if not clear:
        raise InputError(name, "at least one sentence", "none")
    first, line = clear[0]
    within = line.strip(" \t")  # tabs at the end of a line of spaces separate nothing
    plain = Layout(first, tabs="\t" in within or " " not in within, width=0, universal=False)
    width = len(plain.split(line))
    written = line.count("\t") + 1
    if plain.tabs and width < written and any(len(plain.split(other)) == written for _, other in clear):
        width = written  # the last column is empty here, but not everywhere
    if width == 1:
        raise InputError(f"{name}, line {first}", "a word and its tags, separated by tabs or spaces", f"only {line!r}")
    ids = (line.partition("\t")[0] for _, line in clear if not line.startswith("#"))
    universal = plain.tabs and width == 10 and all(WORD_ID.fullmatch(id) or SKIPPED_ID.fullmatch(id) for id in ids)
    return Layout(first, tabs=plain.tabs, width=width, universal=universal)


def _read_sentences(lines: Sequence[str], layout: Layout, name: str) -> list[Sentence]:
    stem = PurePath(name).stem
    sentences: list[Sentence] = []
    open_sentence = False
    documents, document, sentence_id = 0, None, None
    for number, line in enumerate(lines, 1):
        new_document = DOCUMENT.match(line)
        if new_document or not line.strip():
            open_sentence, sentence_id = False, None
        elif layout.is_comment(line, begins=not open_sentence):
            new_document = NEW_DOCUMENT.fullmatch(line)
            if found := SENTENCE_ID.fullmatch(line):
                sentence_id = found["id"]
        elif (fields := _word_fields(line, layout, f"{name}, line {number}")) is not None:
            if not open_sentence:
                sentences.append(Sentence(number, sentence_id, document))
            open_sentence = True
            sentences[-1].rows.append(fields)
        if new_document:
            documents += 1
            document = new_document.groupdict().get("id") or f"{stem}#{documents}"
    return sentences


def _word_fields(line: str, layout: Layout, where: str) -> list[str] | None:
    """The word first, then its tags; None for a line of CoNLL-U that is no syntactic word."""
    fields = layout.split(line)
    if len(fields) != layout.width:
        separator = "tabs" if layout.tabs else "spaces"
        like = f", as line {layout.first} has" if layout.first else ""
        message = f"every word's line must have {layout.width} fields separated by {separator}{like}"
        raise InputError(where, message, f"{len(fields)}")
    if layout.universal:
        if SKIPPED_ID.fullmatch(fields[0]):
            return None
        if not WORD_ID.fullmatch(fields[0]):
            raise InputError(where, "a CoNLL-U line begins with the word's number", repr(fields[0]))
        fields = fields[1:]
    if not fields[0].strip():
        raise InputError(where, "a word must not be empty", repr(fields[0]))
    return fields


def _columns(sentences: Sequence[Sentence], layout: Layout) -> dict[str, NDArray[Any]]:
    names: tuple[str, ...] = UNIVERSAL
    if not layout.universal:
        last = {row[-1] for sentence in sentences for row in sentence.rows}
        last_name = "ner" if all(CHUNK_TAG.fullmatch(tag) for tag in last) else "tags"
        names = (*(f"column_{number}" for number in range(2, layout.width)), last_name)
        if layout.width == 4:
            names = ("pos", "chunk", "ner")
    return {
        column: list_texts([[row[position] for row in sentence.rows] for sentence in sentences])
        for position, column in enumerate(("tokens", *names))
    }
