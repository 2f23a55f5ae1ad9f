"""One local data file, by its ending."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from probekit.errors import InputError
from probekit.inputs.arrow import read_parquet
from probekit.inputs.conll import read_conll
from probekit.inputs.delimited import read_csv, read_tsv
from probekit.inputs.jsonl import read_jsonl
from probekit.inputs.table import Table

READERS: dict[str, Callable[[bytes, str], Table]] = {
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
    ".conll": read_conll,
    ".conllu": read_conll,
}

ENDINGS = ".csv, .tsv, .jsonl, .parquet, .conll or .conllu"


def read_file(path: Path) -> Table:
    """Read a file in whole.

    Raises ``InputError`` if there is no such file (names one that is nearly called that), for a folder, another ending,
    a file that can't be read, one without rows, and what its format's reader refuses.
    """
    if os.path.isdir(path):  # unlike Path.is_dir, no OSError for a name that is too long
        raise InputError(str(path), f"a data file, ending in {ENDINGS}", f"a folder{_data_files(path)}")
    if not os.path.exists(path):
        raise InputError(str(path), f"there is no such file{_near(path)}")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(path.name, f"data files end in {ENDINGS}", repr(path.suffix))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(str(path), "a file that can be read", error.strerror or str(error)) from error
    table = reader(data, path.name)
    if table.n_rows == 0:
        raise InputError(path.name, "at least one row", "none")
    return replace(table, path=str(path))


def _near(path: Path) -> str:
    if not os.path.isdir(path.parent):
        return f", nor a folder '{path.parent}'"
    near = difflib.get_close_matches(path.name, sorted(file.name for file in path.parent.iterdir()), n=1)
    return f"; did you mean '{path.with_name(near[0])}'?" if near else ""


def _data_files(folder: Path) -> str:
    found = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in READERS)
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return f" with {', '.join(found[:5])}{more}" if found else ""
