"""Read labelled texts: from files, from the hub, and from what is in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from probekit.errors import InputError, SpecError
from probekit.inputs.examples import make_examples
from probekit.inputs.files import ENDINGS, read_file
from probekit.inputs.hub import HubId, load_hub, parse_source, tables_from_dataset_dict
from probekit.inputs.memory import is_in_memory, tables_from_memory
from probekit.inputs.parts import parse_mapping
from probekit.inputs.table import Table
from probekit.spec import Examples


def read_examples(
    data: Any,
    *,
    text: str | None = None,
    split: str | Mapping[str, str] | None = None,
    id_column: str | None = None,
    blank_texts: bool = False,
) -> Examples:
    """Read and check labelled texts, n rows in the order of the sources.

    ``data``: one or more ``.csv``, ``.tsv``, ``.jsonl``, ``.parquet``, ``.conll`` or ``.conllu`` files, or datasets of
    the hub (``org/name:config@revision``); or what is in memory (see ``tables_from_memory``). ``text``: the text
    column; without it the one called text, sentence, content, review or utterance in any case, else a column of lists
    of text called tokens or words, else the only column with text. ``split``: splits of hub datasets, separated by
    commas; without it all; or the part that each file or split is, as ``a=train,b=test`` or as a mapping.
    ``id_column``: without it the column "id", else rows are numbered from 0 through all sources, as they are for
    "none" and "". Ids that restart in every file or split get its name before them: ``train/0``. ``blank_texts``:
    whether a text may be blank.

    Several files or splits need the same columns. A column "split" then says which part a row is from: by the names of
    files, folders and splits if all of them say one (see ``table_parts``), else by the file's name without its ending
    or the split's name, and ``Examples.notes`` says so. If the data have a column "split" that one is kept and the
    other is called "source_file" (and left out if the data have that as well).

    In CSV and TSV files a column is numbers or true/false only if every cell is (see ``type_cells``); NA, null and None
    are words, and two values of a column that differ only by blanks around them are one. JSON and Parquet keep their
    types. Missing values are "" in text and NaN in numbers. A column of lists of text, of numbers or of true/false
    becomes JSON text (``["a","b"]``); columns of other lists or of objects are left out, and the notes name them. If
    the text column has lists of text, these are the words, and a text is its words with single spaces between.

    Raises ``InputError`` for a source that can't be found or read, a row that has no text, an id that occurs twice, and
    whatever else would lose or shift data, naming file, row and column; ``SpecError`` for no source, an unknown split,
    and a split of local files.
    """
    mapping = None if split is None else parse_mapping(split)
    names = split if isinstance(split, str) and mapping is None else None
    if is_in_memory(data):
        if names is not None and not isinstance(data, Mapping):
            raise SpecError(f"--split {names}", "these data have no splits")
        tables, source = tables_from_memory(data, split=names, id_column=id_column)
    else:
        parsed = [parse_source(source) for source in _as_list(data)]
        if not parsed:
            raise SpecError("DATA", "at least one file or dataset", "none")
        if names is not None and not any(isinstance(source, HubId) for source in parsed):
            message = "only hub datasets have splits; of local files, say which part each is, as in a=train,b=test"
            raise SpecError(f"--split {names}", message)
        tables = [table for source in parsed for table in _tables(source, names)]
        tables = _told_apart(tables)
        # Of a file its name alone: nothing of the machine's folders.
        source = ", ".join(source.name if isinstance(source, Path) else source.given for source in parsed)
    return make_examples(tables, source, text=text, id_column=id_column, mapping=mapping, blank_texts=blank_texts)


def _as_list(data: Any) -> list[str | os.PathLike[str]]:
    if isinstance(data, str | os.PathLike):
        return [data]
    if isinstance(data, list | tuple) and all(isinstance(source, str | os.PathLike) for source in data):
        return list(data)
    allowed = f"files ({ENDINGS}), ids of datasets, a list of texts, a pandas DataFrame, a Dataset or a DatasetDict"
    raise InputError("data", allowed, type(data).__name__)


def _told_apart(tables: list[Table]) -> list[Table]:
    """Files of one name get their folder before it, for messages."""
    if len({table.name for table in tables}) == len(tables):
        return tables
    return [replace(table, name="/".join(PurePath(table.path).parts[-2:])) if table.path else table for table in tables]


def _tables(source: Path | HubId, split: str | None) -> list[Table]:
    if isinstance(source, Path):
        return [read_file(source)]
    return tables_from_dataset_dict(load_hub(source), source.given, split=split)
