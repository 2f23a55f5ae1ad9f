"""``probekit predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from probekit.api.predict import Prediction
    from probekit.spec import Examples, Json


def predict(
    probe: Annotated[Path, typer.Argument(metavar="PROBE", help="A .skops file made by probe --save-probes.")],
    data: Annotated[
        list[str] | None, typer.Argument(metavar="[DATA...]", help="Files or dataset as for extract; - reads lines.")
    ] = None,
    text: Annotated[list[str] | None, typer.Option("--text", help="A text; may be given several times.")] = None,
    column: Annotated[str | None, typer.Option(help="Column of DATA with the text. [default: found by name]")] = None,
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
    (on a terminal entities are coloured in their text).
    """
    from probekit.api.predict import predict as run_predict
    from probekit.api.predict import reads_spans
    from probekit.api.spans import END, START, character_spans
    from probekit.api.tagging import is_of_words, tag_texts
    from probekit.cli.progress import Bars
    from probekit.cli.tagged import print_tagged
    from probekit.errors import SpecError
    from probekit.probes.saved import SUFFIX, read_card

    more = [name for name in data or [] if name.endswith(SUFFIX)]
    if more:
        raise SpecError("PROBE", "one saved probe at a time", " and ".join([str(probe), *more]))
    ids, texts, examples = _texts(data or [], text or [], column)
    options: dict[str, Any] = {
        "model": model,
        "device": device,
        "threads": threads,
        "trust_remote_code": trust_remote_code,
    }
    card = read_card(probe)
    if is_of_words(card):
        with Bars() as bars:
            tagged = tag_texts(
                probe, texts, words=None if examples is None else examples.words, listener=bars, **options
            )
        print_tagged(ids, tagged, as_json=as_json)
        return
    if reads_spans(card):
        if examples is None:
            raise SpecError(f"probe {probe}", f"reads spans: give DATA with columns {START!r} and {END!r}")
        options["spans"] = character_spans(examples).tolist()
    with Bars() as bars:
        found = run_predict(probe, texts, listener=bars, **options)
    _print(_rows(found, ids), as_json=as_json)


def _texts(data: list[str], given: list[str], column: str | None) -> tuple[list[str], list[str], Examples | None]:
    """Ids, texts, and the data that they are from, if any."""
    import sys

    from probekit.errors import SpecError

    if bool(data) == bool(given):
        raise SpecError("predict", "needs either --text or DATA", "both" if data else "neither")
    if data == ["-"]:
        given = sys.stdin.read().splitlines()
        if not given:
            raise SpecError("standard input", "needs a text per line", "nothing")
    if given:
        return [str(i + 1) for i in range(len(given))], given, None
    from probekit.inputs import read_examples

    examples = read_examples(data, text=column)
    return [str(i) for i in examples.ids], examples.texts, examples


def _rows(found: Prediction, ids: list[str]) -> list[Json]:
    rows: list[Json] = []
    for i, label in enumerate(found.labels.tolist()):
        row: Json = {"id": ids[i], "prediction": label}
        if found.probability is not None:
            row |= {
                f"p_{name}": round(p, 6) for name, p in zip(found.classes, found.probability[i].tolist(), strict=True)
            }
        rows.append(row)
    return rows


def _print(rows: list[Json], *, as_json: bool) -> None:
    import csv
    import json
    import sys

    if as_json:
        for row in rows:
            typer.echo(json.dumps(row, ensure_ascii=False))
        return
    for row in rows:
        if isinstance(row["prediction"], list):
            row["prediction"] = json.dumps(row["prediction"], ensure_ascii=False)
    writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
