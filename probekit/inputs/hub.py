"""Datasets of the Hugging Face hub, whose names are told from those of files."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from probekit.errors import InputError, SpecError
from probekit.inputs.arrow import columns_from_arrow
from probekit.inputs.columns import class_names
from probekit.inputs.files import ENDINGS, READERS
from probekit.inputs.table import Table

# A revision may be a reference with slashes (refs/convert/parquet); names and configurations have none.
HUB_ID = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[^@:/]+))?(?:@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class HubId:
    """A dataset of the hub: ``org/name:config@revision``, ``given`` as a whole."""

    given: str
    name: str
    config: str | None
    revision: str | None


def parse_source(source: str | os.PathLike[str]) -> Path | HubId:
    """Tell files from datasets.

    A path object is a path, and so is text that exists as one, begins with ``.``, ``/`` or ``~``, has an
    ending of ``READERS``, looks like a file's name (a dot and no slash), or can't be the name
    of a dataset (two slashes, a blank).

    >>> parse_source("org/data:small@v1.0")
    HubId(given='org/data:small@v1.0', name='org/data', config='small', revision='v1.0')
    >>> parse_source("data/train.tsv")
    PosixPath('data/train.tsv')
    """
    path = Path(os.path.expanduser(source))  # Path.expanduser raises for an unknown user
    hub = HUB_ID.fullmatch(source) if isinstance(source, str) else None
    looks_local = bool(path.suffix) and "/" not in os.fspath(source)
    local = looks_local or path.suffix.lower() in READERS or os.fspath(source).startswith((".", "/", "~"))
    if hub is None or local or os.path.exists(path):
        return path
    return HubId(hub[0], **hub.groupdict())


def load_hub(hub: HubId) -> Mapping[str, Any]:
    """All splits of a dataset as a ``datasets.DatasetDict``, from the hub or its local cache.

    Raises ``InputError`` if there is none, the hub can't be reached, the configuration or revision is unknown, or the
    dataset is a loading script, or the name is one of ``datasets``' own for a format of files: given that, it would
    read whatever files are in the working folder.
    """
    import datasets  # noqa: PLC0415

    # The base of whichever HTTP client huggingface_hub has: a connection that breaks half-way is no OSError there.
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # noqa: PLC0415

    if "/" not in hub.name and _is_format(hub.name):
        message = f"name the file with its ending ({ENDINGS}), or a dataset of the hub (ORG/NAME)"
        raise InputError(hub.given, message, "the name of a kind of files")
    try:
        return datasets.load_dataset(hub.name, hub.config, revision=hub.revision)  # type: ignore[no-any-return]
    except (datasets.exceptions.DatasetsError, HTTPError, OSError, ValueError, RuntimeError) as error:
        if "Dataset scripts are no longer supported" in str(error):
            config = f":{hub.config}" if hub.config else ""
            converted = f"{hub.name}{config}@refs/convert/parquet"
            raise InputError(
                hub.given, f"this dataset is a loading script, which is never run; try {converted}"
            ) from error
        reason = " ".join(str(error).partition("Example of usage")[0].split())
        raise InputError(
            hub.given, "neither a file here nor a dataset that can be loaded (ORG/NAME:CONFIG@REVISION)", reason
        ) from error


def _is_format(name: str) -> bool:
    """Whether ``datasets`` has a builder of that name, which needs no dataset but only files."""
    return name.isidentifier() and find_spec(f"datasets.packaged_modules.{name}") is not None


def tables_from_dataset_dict(dataset_dict: Mapping[str, Any], name: str, *, split: str | None) -> list[Table]:
    """One table per split.

    ``dataset_dict``: a ``datasets.DatasetDict``. ``split``: names separated by commas; None for all. Class labels
    and lists of them become their names, -1 (none) a missing value.

    Raises ``SpecError`` for a split that isn't there and ``InputError`` for one without rows.
    """
    return [
        table_from_dataset(dataset_dict[part], name, part) for part in choose_splits(list(dataset_dict), name, split)
    ]


def choose_splits(known: list[str], name: str, split: str | None) -> list[str]:
    """The splits named in ``split``, in that order. Raises ``SpecError`` for one that isn't there."""
    if split is None:
        return known
    chosen = list(dict.fromkeys(part.strip() for part in split.split(",")))
    for part in chosen:
        if part not in known:
            near = difflib.get_close_matches(part, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SpecError(f"--split {split}", f"the splits of {name} are {', '.join(known)}{hint}")
    return chosen


def table_from_dataset(dataset: Any, name: str, part: str) -> Table:
    """The table of one split, a ``datasets.Dataset``; ``part``: the split's name, "" for none."""
    title = f"{name}, split {part!r}" if part else name
    if len(dataset) == 0:
        raise InputError(title, "at least one row", "none")
    labels = class_names(dataset.features.to_dict())
    columns, nested, lists = columns_from_arrow(dataset.with_format("arrow")[:], title, labels=labels)
    return Table(title, part, "split" if part else "table", len(dataset), columns, nested, lists)
