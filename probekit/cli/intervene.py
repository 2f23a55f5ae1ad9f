"""``probekit intervene``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from probekit.cli.probe import check_outputs

if TYPE_CHECKING:
    from probekit.explanation.intervention import InterventionResult


def intervene(
    probe: Annotated[
        Path,
        typer.Argument(metavar="PROBE", help="A .skops file made by probe --save-probes, or their folder (the best)."),
    ],
    cache: Annotated[Path, typer.Argument(metavar="CACHE", help="The cache that the probe was fitted on.")],
    erase: Annotated[str, typer.Option(help="leace, mean-difference, or direction: the probe's own.")] = "leace",
    steer: Annotated[
        float | None, typer.Option(help="Erase nothing; add so many times what separates the two classes.")
    ] = None,
    answer: Annotated[
        str | None,
        typer.Option(help='Two words of one token each, in the order of the classes: " negative, positive".'),
    ] = None,
    layers: Annotated[str | None, typer.Option(help="Those above to look at. [default: all in the cache]")] = None,
    n_random: Annotated[int, typer.Option("--random", help="How many draws of random directions.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the random directions and of the intervals.")] = 0,
    max_rows: Annotated[int, typer.Option(help="Rows of the training part, and of the test part, at most.")] = 2000,
    target: Annotated[str | None, typer.Option(help="Which target, of a folder with probes of several.")] = None,
    split: Annotated[str | None, typer.Option(help="As in probekit probe, by which the probe was fitted.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The CSV to write; JSON is put beside it.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the layers: .png, .svg or .pdf.")] = None,
    model: Annotated[str | None, typer.Option(help="Where the model is, if not on the hub.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. [default: the cores there are]")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes. [default: the cores there are]")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
) -> None:
    """Does the model use what the probe reads?

    What the label can be read by is taken out of every token's state at the probe's layer, and the layers above are
    run on what is left. How far probes there fall, the model's next-token loss and its own answer, stands beside the
    same for random directions.
    """
    from probekit.explanation.intervention import InterventionOptions, answer_words
    from probekit.readspec import RunOptions

    options = InterventionOptions(
        erase=erase,
        steer=steer,
        answer=answer_words(answer),
        layers=layers,
        n_random=n_random,
        seed=seed,
        max_rows=max_rows,
        split=split,
    )
    check_outputs(out, (), plot, None, overwrite=overwrite)
    import joblib

    from probekit.api.intervene import run_intervene
    from probekit.cli.progress import Bars
    from probekit.evaluate.executor import workers

    jobs = joblib.cpu_count() if jobs is None else jobs
    with workers(jobs, fork=True) as executor, Bars() as bars:
        run = RunOptions(device, threads, trust_remote_code=trust_remote_code)
        found = run_intervene(probe, cache, options, run, target=target, model=model, executor=executor, listener=bars)
    _show(found, out, plot, as_json=as_json)


def _show(found: InterventionResult, out: Path | None, plot: Path | None, *, as_json: bool) -> None:
    """The files first, for whoever reads the table may go away; then the table on stdout."""
    from probekit.cli.screen import plain_table, say, screen, show_json
    from probekit.report import table_rows, write_table
    from probekit.report.intervene_figure import draw_intervention
    from probekit.report.intervene_table import intervene_table

    written: list[Path] = []
    if out is not None:
        record = {**found.record, "verdict": list(found.verdict), "warnings": list(found.warnings)}
        written += write_table(found.table, record, out)
    if plot is not None:
        draw_intervention(plain_table(found.table), plot)
        written.append(plot)
    try:
        if as_json:
            show_json({"rows": table_rows(found.table), "verdict": list(found.verdict)}, indent=1)
        else:
            console = screen()
            for part in intervene_table(plain_table(found.table), found.verdict):
                console.print(part)
    finally:
        for text in found.warnings:
            say(f"warning: {text}")
        if written:
            say(f"wrote {', '.join(map(str, written))}")
