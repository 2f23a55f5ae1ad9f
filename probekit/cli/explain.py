"""``probekit explain``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from probekit.cli.predict import check_use, given_texts
from probekit.errors import SpecError
from probekit.output import check_can_write, side_path, write_whole

if TYPE_CHECKING:
    from probekit.explanation.results import Explanation, LayerExplanation

KINDS = {"--out": (".csv",), "--plot": (".png", ".svg", ".pdf"), "--html": (".html",)}
TOP, LEAST, MANY = 10, 3, 50
"""Words in a list; from so many texts on, of words that occur at least so often."""


def explain(
    probe: Annotated[
        Path,
        typer.Argument(
            metavar="PROBE",
            help="A .skops file made by probe --save-probes, or their folder (the best), or one of train.",
        ),
    ],
    data: Annotated[
        list[str] | None, typer.Argument(metavar="[DATA...]", help="Files or dataset as for extract; - reads lines.")
    ] = None,
    text: Annotated[list[str] | None, typer.Option("--text", help="A text; may be given several times.")] = None,
    column: Annotated[str | None, typer.Option(help="Column of DATA with the text. [default: found by name]")] = None,
    target: Annotated[str | None, typer.Option(help="Which target, of a folder with probes of several.")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="occlusion, lrp, integrated-gradients, gradient-x-input, gradient-norm; several with commas. "
            "[default: occlusion; for a few texts the next two beside it]"
        ),
    ] = None,
    answer: Annotated[
        str | None, typer.Option("--class", help="The class or label to explain. [default: the predicted one]")
    ] = None,
    word: Annotated[
        int | None, typer.Option(min=0, help="Of tags: the word, from 0, whose tag is explained. [default: the first]")
    ] = None,
    remove: Annotated[str, typer.Option(help="How words are left out: delete or mask.")] = "delete",
    baseline: Annotated[
        str | None,
        typer.Option(help="Of integrated gradients: mask, pad or zero. [default: the first there is]"),
    ] = None,
    by_layer: Annotated[
        Path | None, typer.Option(metavar="CACHE", help="Words x layers, by a probe fitted at every layer of CACHE.")
    ] = None,
    layers: Annotated[str, typer.Option(help="Of CACHE: all, 0,6,12, 0:12:2 or -1.")] = "all",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="A CSV: each word of each text; of DATA the mean of each word type; layers in OUT.layers.csv.",
        ),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw it: .png, .svg or .pdf.")] = None,
    html: Annotated[Path | None, typer.Option(help="A page that needs no network.")] = None,
    model: Annotated[str | None, typer.Option(help="Where the model is, if not on the hub.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. [default: the cores there are]")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random words that importances are held against.")] = 0,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
) -> None:
    """Which words moved a saved probe's answer, and whether to trust that.

    The log-odds of the answer (or the number) are explained. Of DATA it says what each word does on the mean.
    """
    asked = locals().copy()
    check_use("explain", probe, data or [], text or [], column)
    _check_outputs({"--out": out, "--plot": plot, "--html": html}, by_layer=by_layer is not None, overwrite=overwrite)
    if by_layer is not None and (data or len(text or []) > 1):
        raise SpecError("--by-layer", "explains one text at a time", "DATA" if data else f"{len(text or [])} texts")
    if by_layer is None and layers != "all":
        raise SpecError(f"--layers {layers}", "goes with --by-layer")
    if by_layer is not None and not by_layer.exists():
        raise SpecError(f"--by-layer {by_layer}", "there is no such cache")
    from probekit.api.explain import ExplainOptions, check_cache, explained, explained_layers, opened_texts
    from probekit.api.predict import found_card, reads_spans
    from probekit.cli.progress import Bars
    from probekit.extraction.spans import END, START, character_spans
    from probekit.readspec import RunOptions
    from probekit.saved import of_words

    given = {field.name: asked[field.name] for field in fields(ExplainOptions) if field.name in asked}
    options = ExplainOptions(**given)
    ids, texts, examples = given_texts(data or [], text or [], column)
    with Bars() as bars:
        path, card = found_card(probe, target, bars)
        options.check(card)
        if by_layer is not None:
            check_cache(by_layer, card)
        places: dict[str, Any] = {}
        if of_words(card):
            places["words"] = None if examples is None else examples.words
        if reads_spans(card):
            if examples is None:
                raise SpecError(f"probe {path}", f"reads spans: give DATA with columns {START!r} and {END!r}")
            places["spans"] = character_spans(examples).tolist()
        if data:
            options = replace(options, every_answer=not of_words(card))
        with opened_texts(
            path,
            texts,
            target=card.get("target"),
            ids=ids,
            model=model,
            options=RunOptions(device, threads, trust_remote_code=trust_remote_code),
            check=options.check,
            listener=bars,
            **places,
        ) as (reading, bound, card):
            found = list(explained(reading, bound, card, options, bars))
            by = None
            if by_layer is not None:
                by = explained_layers(reading, bound, card, options, by_layer, layers=layers, listener=bars)
    written = _write(found, by, out=out, plot=plot, html=html, of_data=bool(data))
    _show(found, by, as_json=as_json, of_data=bool(data))
    if written:
        from probekit.cli.screen import say

        say(f"wrote {', '.join(map(str, written))}")


def _check_outputs(outputs: dict[str, Path | None], *, by_layer: bool, overwrite: bool) -> None:
    """Raise SpecError before the work for what could not be written after it."""
    for option, path in outputs.items():
        if path is None:
            continue
        if path.suffix not in KINDS[option]:
            raise SpecError(f"{option} {path}", f"must end in {' or '.join(KINDS[option])}")
        check_can_write(option, path, overwrite=overwrite)
    if by_layer and outputs["--out"] is not None:
        check_can_write("--out", side_path(outputs["--out"], "layers"), overwrite=overwrite)


def _write(
    found: Sequence[Explanation],
    by: LayerExplanation | None,
    *,
    out: Path | None,
    plot: Path | None,
    html: Path | None,
    of_data: bool,
) -> list[Path]:
    """The files that are asked for."""
    from probekit.explanation.data_set import layer_table, text_table, word_table
    from probekit.report.files import write_csv

    words = word_table(found) if of_data and found[0].all_words is not None else None
    written = []
    if out is not None:
        written.append(write_csv(text_table(found) if words is None else words, out))
        if by is not None:
            written.append(write_csv(layer_table(by), side_path(out, "layers")))
    if plot is not None:
        from probekit.report.explain_figure import draw_explanations, draw_layers, draw_words

        if by is not None:
            draw_layers(by, plot)
        elif words is not None:
            draw_words(words, plot)
        else:
            draw_explanations(found, plot)
        written.append(plot)
    if html is not None:
        from probekit.report.explain_html import explanations_html

        write_whole(html, explanations_html(found, layers=by, words=words).encode("utf-8", "backslashreplace"))
        written.append(html)
    return written


def _show(found: Sequence[Explanation], by: LayerExplanation | None, *, as_json: bool, of_data: bool) -> None:
    from probekit.cli.screen import screen, show_json
    from probekit.explanation.data_set import trust_table, word_table
    from probekit.report.explain_terminal import explained_layers, explained_text, word_lists
    from probekit.report.explain_trust import trust_lines

    if as_json:
        for one in found:
            show_json(one.json() if by is None else {**one.json(), "by_layer": by.json()})
        return
    console = screen()
    if of_data and found[0].all_words is not None:
        least = LEAST if len(found) >= MANY else 1
        for part in word_lists(word_table(found), n=TOP, least=least):
            console.print(part)
        for part in trust_lines(trust_table(found), of_numbers=found[0].probability is None):
            console.print(part)
        return
    for one in found:
        for part in explained_text(one, named=len(found) > 1):
            console.print(part)
    if by is not None:
        for part in explained_layers(by):
            console.print(part)
