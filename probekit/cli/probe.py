"""``probekit probe``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from probekit.api.probe import ProbeRun


def probe(
    caches: Annotated[list[Path], typer.Argument(metavar="CACHE...", help="Caches made by probekit extract.")],
    target: Annotated[str, typer.Option(help="Label column; several with commas.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The CSV to write; JSON is put beside it.")] = None,
    layers: Annotated[str, typer.Option(help="all, or numbers and ranges: 0,4,8 or 0:12:2 or -1.")] = "all",
    probe_names: Annotated[
        str | None, typer.Option("--probe", help="Probes, with commas. [default: classes logistic, numbers ridge]")
    ] = None,
    pooling: Annotated[str | None, typer.Option(help="Poolings, with commas. [default: all in the cache]")] = None,
    task: Annotated[str, typer.Option(help="auto, classification or regression.")] = "auto",
    split: Annotated[
        str | None,
        typer.Option(help="Column with train, dev, test; or the test fraction. [default: column 'split', else 0.2]"),
    ] = None,
    group: Annotated[str | None, typer.Option(help="Column; rows of one group stay on one side.")] = None,
    seeds: Annotated[int, typer.Option(help="How many random splits.")] = 1,
    controls: Annotated[bool, typer.Option("--controls", help="Every control that applies; see --control.")] = False,
    control: Annotated[
        str | None, typer.Option(help="Some of them, with commas: shuffled, length, conditional, mdl.")
    ] = None,
    random_cache: Annotated[
        Path | None, typer.Option(help="The same texts read with --random-seed, to be probed alike.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes. [default: the cores there are]")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the curves: .png, .svg or .pdf.")] = None,
    save_probes: Annotated[
        Path | None, typer.Option(help="Folder to save the selected layers' probes in, for probekit predict.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
) -> None:
    """Fit a probe on every layer: how well each one knows the target.

    Hyper-parameters are chosen on training rows, the best layer on validation rows, the score is of the test rows.
    """
    import joblib

    from probekit.api import probe as api
    from probekit.cli.progress import Bars
    from probekit.report import json_path

    check_writable([path for path in (out, json_path(out) if out else None, plot) if path], overwrite=overwrite)
    options = api.ProbeOptions(
        layers=layers,
        probes=_names(probe_names),
        poolings=_names(pooling),
        split=split,
        group=group,
        task=task,
        seeds=seeds,
        controls=control or controls,
    )
    with Bars() as bars:
        run = api.run_probes(
            caches,
            target.split(","),
            options=options,
            random_cache=random_cache,
            jobs=joblib.cpu_count() if jobs is None else jobs,
            listener=bars,
        )
    show_run(run, as_json=as_json)
    save_run(run, out=out, plot=plot, folder=save_probes)


def check_writable(paths: list[Path], *, overwrite: bool) -> None:
    """Raise SpecError before the work for what could not be written after it."""
    from probekit.errors import SpecError

    for path in paths:
        if not path.resolve().parent.is_dir():
            raise SpecError(str(path), "the folder must exist", str(path.parent))
        if path.is_dir() or (path.exists() and not overwrite):
            raise SpecError(str(path), "exists already; use --overwrite or another name")
    for path in paths:
        if path == paths[-1] and path.suffix not in (".csv", ".json", ".png", ".svg", ".pdf", ".tsv", ".txt"):
            raise SpecError(str(path), "must end in .csv for the table, or .png, .svg or .pdf for the picture")


def show_run(run: ProbeRun, *, as_json: bool) -> None:
    """The tables on stdout, the warnings on stderr."""
    import json

    from rich.console import Console

    from probekit.report import layer_tables, table_rows

    if as_json:
        typer.echo(json.dumps(table_rows(run.table), indent=1, ensure_ascii=False))
    else:
        console = Console(highlight=False)
        for table in layer_tables(run.table):
            console.print(table)
            console.print()
    for text in run.warnings:
        typer.echo(f"warning: {text}", err=True)


def save_run(run: ProbeRun, *, out: Path | None, plot: Path | None, folder: Path | None) -> None:
    """Write what was asked for and say so."""
    from probekit.report import draw_curves, write_table

    written: list[Path] = []
    if out is not None:
        written += write_table(run.table, {**run.record, "warnings": list(run.warnings)}, out)
    if plot is not None:
        draw_curves(run.table, plot)
        written.append(plot)
    if folder is not None:
        from probekit.api.predict import save_probes

        written += save_probes(run, folder)
    if written:
        typer.echo(f"wrote {', '.join(map(str, written))}", err=True)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()
