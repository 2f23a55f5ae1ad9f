"""Read labelled texts, from files and from the hub."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from probekit.errors import SpecError
from probekit.inputs.examples import make_examples
from probekit.inputs.files import read_file
from probekit.inputs.hub import load_hub, tables_from_dataset_dict
from probekit.inputs.sources import HubId, parse_source, source_name
from probekit.inputs.table import Table
from probekit.spec import Examples


def read_examples(
    sources: Sequence[str | os.PathLike[str]],
    *,
    text: str | None = None,
    split: str | None = None,
    id_column: str | None = None,
    blank_texts: bool = False,
) -> Examples:
    """Read and check labelled texts, n rows in the order of the sources.

    ``sources``: ``.csv``, ``.tsv``, ``.jsonl``, ``.parquet``, ``.conll`` or ``.conllu`` files, or datasets of the hub
    (``org/name:config@revision``). ``text``: the text column; without it the one called text, sentence, content, review
    or utterance in any case, else a column of lists of text called tokens or words, else the only column with text.
    ``split``: splits of hub datasets, separated by commas; without it all. ``id_column``: without it the column "id",
    else rows are numbered from 0 through all sources. ``blank_texts``: whether a text may be blank.

    Several files or splits need the same columns. A column "split" then says which a row is from, by the file's name
    without its ending or the split's name; if the data have a column "split" that one is kept and the other is called
    "source_file" (and left out if the data have that as well).

    In CSV and TSV files a column is numbers or true/false only if every cell is (see ``type_cells``); NA, null and None
    are words. JSON and Parquet keep their types. Missing values are "" in text and NaN in numbers. A column of
    lists of text, of numbers or of true/false becomes JSON text (``["a","b"]``); columns of other lists or of objects
    are left out. If the text column has lists of text, these are the words, and a text is its words with single spaces
    between.

    Raises ``InputError`` for a source that can't be found or read, a row that has no text, an id that occurs twice, and
    whatever else would lose or shift data, naming file, row and column; ``SpecError`` for no source, an unknown split,
    and a split of local files.
    """
    parsed = [parse_source(source) for source in ([sources] if isinstance(sources, str) else sources)]
    if not parsed:
        raise SpecError("DATA", "at least one file or dataset", "none")
    if split is not None and not any(isinstance(source, HubId) for source in parsed):
        raise SpecError(f"--split {split}", "only hub datasets have splits; of local files, name those you want")
    tables = [table for source in parsed for table in _tables(source, split)]
    return make_examples(
        tables, ", ".join(map(source_name, parsed)), text=text, id_column=id_column, blank_texts=blank_texts
    )


def examples_from_dataset_dict(
    dataset_dict: Mapping[str, Any],
    name: str,
    *,
    text: str | None = None,
    split: str | None = None,
    id_column: str | None = None,
) -> Examples:
    """The same for a ``datasets.DatasetDict`` in memory, called ``name`` in messages and results.

    Class labels, also those in lists, become their names, and -1, which stands for none, a missing value. Raises as
    ``read_examples`` does.
    """
    tables = tables_from_dataset_dict(dataset_dict, name, split=split)
    return make_examples(tables, name, text=text, id_column=id_column)


def _tables(source: Path | HubId, split: str | None) -> list[Table]:
    if isinstance(source, Path):
        return [read_file(source)]
    return tables_from_dataset_dict(load_hub(source), source.given, split=split)
