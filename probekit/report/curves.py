"""What one curve of a table is, and how several are told apart."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from probekit.spec import Json

CURVE = (
    *("cache", "model", "target", "task", "metric", "pooling", "probe", "protocol"),
    *("group", "n_groups_crossing"),
)
"""The columns whose values are one throughout a curve; a table has some of them."""


def curves(table: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The rows of each curve, in the table's order. Every choice of a layer, caption and legend entry is of one."""
    by = [name for name in CURVE if name in table]
    for _, curve in table.groupby(by, sort=False, dropna=False):
        yield curve


def records(table: pd.DataFrame) -> list[Json]:
    """The rows, each by column."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def named_caches(table: pd.DataFrame) -> bool:
    """Whether the table is of several caches, so that each has to be named."""
    return table["cache"].nunique(dropna=False) > 1
