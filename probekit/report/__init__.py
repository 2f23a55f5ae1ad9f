"""The layer table as files: CSV, JSON, and a picture of the curves."""

from __future__ import annotations

from probekit.output import json_path, side_path
from probekit.report.figure import draw_curves
from probekit.report.files import table_csv, table_rows, write_csv, write_table
from probekit.report.head_table import head_table
from probekit.report.health_table import health_tables
from probekit.report.side_tables import SIDE_TABLES
from probekit.report.terminal import layer_tables

__all__ = [
    "SIDE_TABLES",
    "draw_curves",
    "head_table",
    "health_tables",
    "json_path",
    "layer_tables",
    "side_path",
    "table_csv",
    "table_rows",
    "write_csv",
    "write_table",
]
