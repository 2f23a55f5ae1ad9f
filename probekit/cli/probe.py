"""``probekit probe``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from probekit.arguments import check_counts
from probekit.errors import SpecError
from probekit.output import check_can_fill, check_can_write, json_path, side_path

if TYPE_CHECKING:
    import pandas as pd

    from probekit.spec import Result


DRAWS = 10


def probe(
    caches: Annotated[list[Path], typer.Argument(metavar="CACHE...", help="Caches made by probekit extract.")],
    target: Annotated[str, typer.Option(help="Label column; several with commas.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The CSV to write; JSON is put beside it.")] = None,
    layers: Annotated[str, typer.Option(help="all, or numbers and ranges: 0,4,8 or 0:12:2 or -1.")] = "all",
    probe: Annotated[
        str | None, typer.Option(help="Probes, with commas. [default: classes logistic, numbers ridge]")
    ] = None,
    pooling: Annotated[str | None, typer.Option(help="Poolings, with commas. [default: all in the cache]")] = None,
    task: Annotated[
        str,
        typer.Option(
            help="auto, classification, regression or multilabel; COL=TASK for one of the targets, with commas."
        ),
    ] = "auto",
    drop_rare: Annotated[
        int, typer.Option(min=0, help="Leave out classes with fewer rows than this, and their rows.")
    ] = 0,
    split: Annotated[
        str | None,
        typer.Option(help="Column with train, dev, test; or the test fraction. [default: column 'split', else 0.2]"),
    ] = None,
    group: Annotated[str | None, typer.Option(help="Column; rows of one group stay on one side.")] = None,
    seeds: Annotated[int, typer.Option(help="How many random splits.")] = 1,
    controls: Annotated[bool, typer.Option("--controls", help="Every control that applies; see --control.")] = False,
    control: Annotated[
        str | None, typer.Option(help="Some of them, with commas: shuffled, length, conditional, mdl, random.")
    ] = None,
    random_cache: Annotated[
        Path | None, typer.Option(help="The same texts read with --random-seed. [default: made by --control random]")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Where the model is, for --control random, if not on the hub; repeatable.")
    ] = None,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Precision, recall and F1 by class too; OUT.classes.csv.")
    ] = False,
    shots: Annotated[
        str | None,
        typer.Option(help="Few-shot curves: rows of each class to learn from, as 1,2,4,8,16,32; OUT.shots.csv."),
    ] = None,
    draws: Annotated[int, typer.Option(help="How often to draw those rows.")] = DRAWS,
    protocol: Annotated[
        str | None, typer.Option(help="mteb: few shots as MTEB's classification tasks have them; OUT.shots.csv.")
    ] = None,
    transfer: Annotated[
        list[Path] | None, typer.Option(help="Another cache to test on and fit on too; repeatable; OUT.transfer.csv.")
    ] = None,
    subword: Annotated[
        str, typer.Option(help="Tags of words: what stands for a word of several tokens: mean, first, last.")
    ] = "mean",
    viterbi: Annotated[
        bool, typer.Option("--viterbi", help="Entity tags: decode whole sentences, I- only after its B- or I-.")
    ] = False,
    max_words: Annotated[
        int, typer.Option(min=1, help="Tags of words: fit on so many at most, of sentences drawn at random.")
    ] = 100_000,
    jobs: Annotated[int | None, typer.Option(help="Processes. [default: the cores there are]")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the curves: .png, .svg or .pdf.")] = None,
    save_probes: Annotated[
        Path | None, typer.Option(help="Folder to save the selected layers' probes in, for probekit predict.")
    ] = None,
    no_refit: Annotated[
        bool, typer.Option("--no-refit", help="Save the probes as they were scored, fitted on training rows alone.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare what is read of the caches with their checksums.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
) -> None:
    """Fit a probe on every layer: how well each one knows the target.

    Hyper-parameters are chosen on training rows, the best layer on validation rows, the score is of the test rows.
    """
    asked = locals().copy()
    # Before anything heavy is loaded: what can be wrong whatever is in the caches.
    targets = target.split(",")
    check_counts(targets, seeds, jobs)
    wanted = {"shots": shots or protocol, "transfer": transfer, "classes": per_class}
    side_names = [name for name, table in wanted.items() if table]
    check_outputs(out, side_names, plot, save_probes, overwrite=overwrite)
    few = _shots(shots, draws, protocol)
    asked["transfer"] = tuple(transfer or ())
    asked["controls"] = control or controls
    asked["refit"] = save_probes is not None and not no_refit
    from probekit.cli.imports import quick_imports

    with quick_imports():
        import joblib

        from probekit.api.probe import run_probes
        from probekit.cli.progress import Bars
        from probekit.cli.screen import say
        from probekit.evaluate.executor import workers
        from probekit.evaluate.few_shot import MTEB, Shots
        from probekit.evaluate.plan import ProbeOptions

    jobs = joblib.cpu_count() if jobs is None else jobs
    asked["shots"] = MTEB if protocol else Shots(few, draws) if few else None
    options = ProbeOptions(**{field.name: asked[field.name] for field in fields(ProbeOptions)})
    with workers(jobs, fork=True) as executor, Bars() as bars:  # workers first: bars have threads
        run = run_probes(
            caches,
            targets,
            options=options,
            random_cache=random_cache,
            models=model or (),
            jobs=jobs,
            executor=executor,
            listener=bars,
        )
    side = {name: run.tables[name] for name in side_names}
    # Saved first: whoever reads the tables may go away, or have no room for them.
    written = save_run(run, out=out, plot=plot, folder=save_probes, side=side)
    try:
        show_run(run, as_json=as_json, side=side)
    finally:  # whoever reads the tables may have gone away: what is to be known of them is on stderr all the same
        warn_of(run)
        if written:
            say(f"wrote {', '.join(map(str, written))}")


def _shots(shots: str | None, draws: int, protocol: str | None) -> tuple[int, ...]:
    """The numbers of rows to learn from; none where few-shot curves are not asked for, or as MTEB has them."""
    from probekit.errors import SpecError

    if protocol is not None and (protocol != "mteb" or shots is not None):
        raise SpecError(f"--protocol {protocol}", "mteb, without --shots")
    if protocol is not None and draws != DRAWS:
        raise SpecError(f"--draws {draws}", f"goes with --shots; mteb's protocol has {DRAWS}")
    numbers = [] if shots is None else shots.split(",")
    if not all(number.strip().isdecimal() for number in numbers):
        raise SpecError(f"--shots {shots}", "numbers from 1, with commas")
    return tuple(sorted({int(number) for number in numbers}))


def check_outputs(
    out: Path | None, side: Sequence[str], plot: Path | None, folder: Path | None, *, overwrite: bool
) -> None:
    """Raise SpecError before the work for what could not be written after it."""
    for option, path, kinds in (("--out", out, (".csv",)), ("--plot", plot, (".png", ".svg", ".pdf"))):
        if path is not None and path.suffix not in kinds:
            raise SpecError(f"{option} {path}", f"must end in {' or '.join(kinds)}")
    if out is not None:
        for path in (out, json_path(out), *(side_path(out, name) for name in side)):
            check_can_write("--out", path, overwrite=overwrite)
    if plot is not None:
        check_can_write("--plot", plot, overwrite=overwrite)
    if folder is not None:
        check_can_fill("--save-probes", folder, overwrite=overwrite)


def show_run(run: Result, *, as_json: bool, side: Mapping[str, pd.DataFrame] | None = None) -> None:
    """The tables on stdout.

    As JSON: the rows of the layer table; with ``side`` tables an object of them all, the layer table as "layers".
    """
    from probekit.cli.screen import plain_table, screen, show_json
    from probekit.report import SIDE_TABLES, layer_tables, table_rows

    if as_json:
        rows = table_rows(run.table)
        everything = {"layers": rows} | {name: table_rows(table) for name, table in side.items()} if side else rows
        show_json(everything, indent=1)
    else:
        console = screen()
        read = [item for cache in run.record["caches"] for item in cache["targets"].items()]
        how = {(name, target["task"]): target["how"] for name, target in read}
        parts = [*layer_tables(plain_table(run.table), how=how)]
        for name, table in (side or {}).items():
            parts += SIDE_TABLES[name](plain_table(table))
        for part in parts:
            console.print(part)
            console.print()


def warn_of(run: Result) -> None:
    """What a careful reader must know, on stderr."""
    from probekit.cli.screen import say

    for text in run.warnings:
        say(f"warning: {text}")


def save_run(
    run: Result, *, out: Path | None, plot: Path | None, folder: Path | None, side: Mapping[str, pd.DataFrame]
) -> list[Path]:
    """Write what was asked for; returns the files."""
    from probekit.cli.screen import plain_table
    from probekit.report import draw_curves, write_csv, write_table

    written: list[Path] = []
    if out is not None:
        written += write_table(run.table, {**run.record, "warnings": list(run.warnings)}, out)
        written += [write_csv(table, side_path(out, name)) for name, table in side.items()]
    if plot is not None:
        draw_curves(plain_table(run.table), plot)
        written.append(plot)
    if folder is not None:
        from probekit.saved import save

        written += save(run, folder)
    return written
