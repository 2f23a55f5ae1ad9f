"""The health of the features for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from rich.console import Group
from rich.table import Table
from rich.text import Text

HEADINGS = {
    "max_abs": "max |x|",
    "n_nonfinite": "non-finite",
    "top_dimension": "top dim",
    "effective_rank": "eff. rank",
    "cosine": "cosine",
    "cka_previous": "CKA",
}

CAPTION = (
    "top dim: its share of the variance; eff. rank: directions that carry the variance;\n"
    "cosine: of random pairs of texts; CKA: likeness to the layer above this row"
)


def health_tables(health: pd.DataFrame) -> Iterator[Group]:
    """A title and a rich table per pooling, a row per layer."""
    for pooling, rows in health.groupby("pooling", sort=False):
        table = Table(box=None)
        table.add_column("layer", justify="right")
        for heading in HEADINGS.values():
            table.add_column(heading, justify="right")
        for row in rows.to_dict("records"):
            cka = "" if pd.isna(row["cka_previous"]) else f"{row['cka_previous']:.3f}"
            table.add_row(
                str(row["layer"]),
                f"{row['max_abs']:,.4g}",
                f"{row['n_nonfinite']:,}",
                f"{row['top_dimension']:.1%}",
                f"{row['effective_rank']:,.1f}",
                f"{row['cosine']:.3f}",
                cka,
            )
        yield Group(Text(f"{pooling} pooling", style="bold"), table, Text(CAPTION, style="dim"))
