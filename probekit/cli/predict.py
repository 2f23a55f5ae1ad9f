"""``probekit predict``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from probekit.errors import InputError, SpecError

if TYPE_CHECKING:
    from probekit.api.predict import Prediction
    from probekit.spec import Examples, Json


def predict(
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
    model: Annotated[str | None, typer.Option(help="Where the model is, if not on the hub.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. [default: the cores there are]")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """Use a saved probe on new text.

    Prints CSV with the answer and, for classes, the probability of each; for tags of words a line per entity or word
    (on a terminal entities are coloured in their text). A blank text has no answer: its cells are empty.
    """
    asked = locals().copy()
    check_use("predict", probe, data or [], text or [], column)
    from probekit.api.predict import found_card, reads_spans, tagged_texts
    from probekit.api.predict import predict as run_predict
    from probekit.cli.progress import Bars
    from probekit.cli.tagged import print_tagged
    from probekit.extraction.spans import END, START, character_spans
    from probekit.saved import of_words

    ids, texts, examples = given_texts(data or [], text or [], column)
    options = {name: asked[name] for name in ("model", "device", "threads", "trust_remote_code")}
    with Bars() as bars:
        path, card = found_card(probe, target, bars)
        if of_words(card):
            options["words"] = None if examples is None else examples.words
        if reads_spans(card):
            if examples is None:
                raise SpecError(f"probe {path}", f"reads spans: give DATA with columns {START!r} and {END!r}")
            options["spans"] = character_spans(examples).tolist()
        found = run_predict(path, texts, target=card.get("target"), listener=bars, **options)
    if found.words is not None:
        print_tagged(ids, tagged_texts(texts, found), as_json=as_json)
    else:
        _print(_rows(found, ids), as_json=as_json)


def check_use(command: str, probe: Path, data: list[str], given: list[str], column: str | None) -> None:
    """Raise SpecError for what is wrong whatever is in the files: before anything heavy is loaded."""
    if not probe.exists():
        raise SpecError(f"probe {probe}", "there is no such file or folder")
    more = [name for name in data if name.endswith(".skops")]
    if more:
        message = f"one saved probe at a time, or their folder ({probe.parent})"
        raise SpecError("PROBE", message, " and ".join([str(probe), *more]))
    if bool(data) == bool(given):
        raise SpecError(command, "needs either --text or DATA", "both" if data else "neither")
    if "-" in data and len(data) > 1:
        raise SpecError("DATA", "- (standard input) goes alone", " ".join(data))
    if column is not None and (given or data == ["-"]):
        raise SpecError(f"--column {column}", "is of DATA with columns; these are plain texts")


def given_texts(data: list[str], given: list[str], column: str | None) -> tuple[list[str], list[str], Examples | None]:
    """Ids, texts, and the data that they are from, if any."""
    if data == ["-"]:
        given = _lines()
    if given:
        return [str(i + 1) for i in range(len(given))], given, None
    from probekit.inputs.read import read_examples

    try:
        examples = read_examples(data, text=column, blank_texts=True)
    except InputError as error:  # here --text is another option
        raise InputError(error.source, error.allowed.replace("with --text", "with --column"), error.got) from error
    return [str(i) for i in examples.ids], examples.texts, examples


def _lines() -> list[str]:
    """The lines of standard input, blank ones too. (Only LF and CRLF end one: other characters are part of a text.)"""
    from probekit.inputs.plain_text import decode, split_lines

    raw = getattr(sys.stdin, "buffer", None)
    text = sys.stdin.read() if raw is None else decode(raw.read(), "standard input")
    lines = split_lines(text)
    if not lines:
        raise SpecError("standard input", "needs a text per line", "nothing")
    return lines


def _rows(found: Prediction, ids: list[str]) -> list[Json]:
    """One for each text; None where there is no answer."""
    rows: list[Json] = []
    for i, label in enumerate(found.labels.tolist()):
        row: Json = {"id": ids[i], "prediction": _or_none(label)}
        if found.probability is not None:
            each = zip(found.classes, found.probability[i].tolist(), strict=True)
            row |= {f"p_{name}": _or_none(round(p, 6)) for name, p in each}
        rows.append(row)
    return rows


def _or_none(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124  (NaN)


def _print(rows: list[Json], *, as_json: bool) -> None:
    from probekit.cli.screen import show_csv, show_json

    if as_json:
        for row in rows:
            show_json(row)
        return
    for row in rows:
        if isinstance(row["prediction"], list):
            row["prediction"] = json.dumps(row["prediction"], ensure_ascii=False)
    show_csv([list(rows[0]), *(list(row.values()) for row in rows)])
