"""How each table beside the layer table is shown on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pandas as pd
from rich.console import RenderableType

from probekit.report.class_table import class_tables
from probekit.report.shot_table import shot_tables
from probekit.report.transfer_table import transfer_tables

SIDE_TABLES: dict[str, Callable[[pd.DataFrame], Iterator[RenderableType]]] = {
    "classes": class_tables,
    "shots": shot_tables,
    "transfer": transfer_tables,
}
"""By the name that is in the file's name, too."""
