"""The layer table as files: CSV, JSON, and a picture of the curves."""

from __future__ import annotations

from probekit.report.figure import draw_curves
from probekit.report.files import json_path, table_csv, table_rows, write_table
from probekit.report.terminal import layer_tables

__all__ = ["draw_curves", "json_path", "layer_tables", "table_csv", "table_rows", "write_table"]
