"""``probekit inspect`` and ``probekit verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

CachePath = Annotated[Path, typer.Argument(metavar="CACHE", help="A cache made by probekit extract.")]


def inspect(
    cache: CachePath,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a cache holds, finished or not."""
    import json

    from probekit.cli.summary import print_summary, summary_json
    from probekit.store import describe

    summary = describe(cache)
    if as_json:
        typer.echo(json.dumps(summary_json(summary), indent=1))
    else:
        print_summary(summary, full=True)


def verify(cache: CachePath) -> None:
    """Check every dataset of a finished cache against its checksum."""
    from probekit.errors import CacheError
    from probekit.store import verify as verify_cache

    report = verify_cache(cache)
    if not report.ok:
        changed = ", ".join(report.mismatches)
        raise CacheError(str(cache), f"every dataset must have the checksum it was sealed with; changed: {changed}")
    size = sum(check.n_bytes for check in report.datasets)
    typer.echo(f"{cache}: {len(report.datasets)} datasets, {size:,} bytes, all as they were sealed")
