"""``probekit inspect`` and ``probekit verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from probekit.errors import CacheError

CachePath = Annotated[Path, typer.Argument(metavar="CACHE", help="A cache made by probekit extract.")]


def inspect(
    cache: CachePath,
    health: Annotated[
        bool, typer.Option("--health", help="Largest values, spread, angles and likeness of the states, by layer.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a cache holds, finished or not."""
    from probekit.cli.screen import show_json
    from probekit.cli.summary import print_summary, summary_json
    from probekit.store import describe

    if health:
        _show_health(cache, as_json=as_json)
        return
    summary = describe(cache)
    if as_json:
        show_json(summary_json(summary), indent=1)
    else:
        print_summary(summary, full=True)


def _show_health(cache: Path, *, as_json: bool) -> None:
    from probekit.api.inspect import diagnostics
    from probekit.cli.progress import Bars
    from probekit.cli.screen import plain_table, screen, show_json
    from probekit.report import health_tables, table_rows

    with Bars() as bars:
        found = diagnostics(cache, listener=bars).table
    if as_json:
        show_json(table_rows(found), indent=1)
        return
    console = screen()
    for part in health_tables(plain_table(found)):
        console.print(part)
        console.print()


def verify(cache: CachePath) -> None:
    """Check every dataset of a finished cache against its checksum."""
    from probekit.cli.screen import show
    from probekit.store import verify as verify_cache

    report = verify_cache(cache)
    if not report.ok:
        changed = ", ".join(report.mismatches)
        raise CacheError(str(cache), f"everything must have the checksum it was sealed with; changed: {changed}")
    size = sum(check.n_bytes for check in report.datasets)
    show(f"{cache}: {len(report.datasets)} datasets, {size:,} bytes, all as they were sealed")
    if report.unchecked:
        show(f"(by an earlier version, without a checksum of: {', '.join(report.unchecked)})")
