"""Datasets of the Hugging Face hub."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.errors import InputError, SpecError
from probekit.inputs.arrow import columns_from_arrow
from probekit.inputs.lists import label_lists
from probekit.inputs.scalars import words
from probekit.inputs.sources import HubId
from probekit.inputs.table import Table, check_names


def load_hub(hub: HubId) -> Mapping[str, Any]:
    """All splits of a dataset as a ``datasets.DatasetDict``, from the hub or its local cache.

    Raises ``InputError`` if there is none, the hub can't be reached, the configuration or revision is unknown, or the
    dataset is a loading script.
    """
    import datasets  # noqa: PLC0415

    # The base of whichever HTTP client huggingface_hub has: a connection that breaks half-way is no OSError there.
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # noqa: PLC0415

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


def tables_from_dataset_dict(dataset_dict: Mapping[str, Any], name: str, *, split: str | None) -> list[Table]:
    """One table per split.

    ``dataset_dict``: a ``datasets.DatasetDict``. ``split``: names separated by commas; None for all. Class labels
    and lists of them become their names, -1 (none) a missing value.

    Raises ``SpecError`` for a split that isn't there and ``InputError`` for one without rows.
    """
    return [_table(dataset_dict[part], name, part) for part in _choose(list(dataset_dict), name, split)]


def _choose(known: list[str], name: str, split: str | None) -> list[str]:
    if split is None:
        return known
    chosen = list(dict.fromkeys(part.strip() for part in split.split(",")))
    for part in chosen:
        if part not in known:
            near = difflib.get_close_matches(part, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SpecError(f"--split {split}", f"the splits of {name} are {', '.join(known)}{hint}")
    return chosen


def _table(dataset: Any, name: str, part: str) -> Table:
    import datasets  # noqa: PLC0415

    title = f"{name}, split {part!r}"
    if len(dataset) == 0:
        raise InputError(title, "at least one row", "none")
    check_names(dataset.column_names, title)
    labels = label_lists(dataset.features.to_dict())
    columns, nested, lists = columns_from_arrow(dataset.with_format("arrow")[:], title, labels=labels)
    for column, feature in dataset.features.items():
        if isinstance(feature, datasets.ClassLabel):
            columns[column] = _label_names(columns[column], feature.names)
    return Table(title, part, "split", len(dataset), columns, nested, lists)


def _label_names(codes: NDArray[Any], names: list[str]) -> NDArray[np.object_]:
    return words([names[int(code)] if code >= 0 else None for code in codes])  # neither -1 nor NaN is
