"""``probekit train``."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from probekit.errors import SpecError, StoppedError, UserError
from probekit.output import check_can_fill

if TYPE_CHECKING:
    from probekit.api.train import TrainResult


BESIDE_A_FILE = ("cache", "device", "threads", "jobs", "trust_remote_code", "as_json", "overwrite", "context")
"""What may stand beside a file that says everything: how the work is done, not what."""


def train(
    context: typer.Context,
    cache: Annotated[Path, typer.Argument(metavar="CACHE|YAML", help="A cache, or a file that says everything.")],
    target: Annotated[str | None, typer.Option(help="Label column; several with commas.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the heads, their table and card.")] = None,
    head: Annotated[str, typer.Option(help="linear, mlp, attention (over tokens) or mix (of all layers).")] = "linear",
    layer: Annotated[int | None, typer.Option(help="[default: the one whose probe is best on validation]")] = None,
    pooling: Annotated[str | None, typer.Option(help="[default: the best on validation]")] = None,
    width: Annotated[int, typer.Option(help="Of an mlp's hidden layer.")] = 128,
    dropout: Annotated[float, typer.Option(help="Of mlp, attention and mix.")] = 0.1,
    task: Annotated[str, typer.Option(help="As in probekit probe; COL=TASK for one of the targets.")] = "auto",
    weight: Annotated[
        str | None, typer.Option(help="COL=NUMBER with commas: how much a target's loss counts. [default: 1]")
    ] = None,
    backbone: Annotated[
        str, typer.Option(help="frozen, top:M (the last M blocks, from cached tokens), lora, or full.")
    ] = "frozen",
    init: Annotated[str, typer.Option(help="Where a linear head begins: probe, or random.")] = "probe",
    solver: Annotated[str, typer.Option(help="adam; lbfgs trains heads on frozen states to convergence.")] = "adam",
    epochs: Annotated[int | None, typer.Option(help="At most. [default: 30 frozen, 4 tuned]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Texts of a step. [default: 64 frozen, 16 tuned]")] = None,
    accumulate: Annotated[int, typer.Option(help="Read a step's texts in so many parts.")] = 1,
    lr: Annotated[float | None, typer.Option(help="Of the backbone. [default: 5e-4 lora, 3e-5 full and top]")] = None,
    head_lr: Annotated[float | None, typer.Option(help="Of heads. [default: by where they begin]")] = None,
    weight_decay: Annotated[float, typer.Option(help="Of the backbone.")] = 0.01,
    penalty: Annotated[
        float | None, typer.Option(help="On the squares of a head's weights, per row. [default: what the probe chose]")
    ] = None,
    patience: Annotated[int, typer.Option(help="Epochs without gain on validation before a target stops.")] = 5,
    sampling: Annotated[str, typer.Option(help="Of several targets: proportional, uniform or temperature.")] = (
        "proportional"
    ),
    temperature: Annotated[float, typer.Option(help="Targets are drawn by their rows to the power of 1/this.")] = 2.0,
    seeds: Annotated[int, typer.Option(help="How many trainings; the table has their mean.")] = 1,
    lora_rank: Annotated[int, typer.Option(help="Rank of the LoRA.")] = 8,
    lora_alpha: Annotated[float | None, typer.Option(help="[default: twice the rank]")] = None,
    lora_dropout: Annotated[float, typer.Option(help="Before the LoRA.")] = 0.0,
    lora_targets: Annotated[str, typer.Option(help="Names of linear modules, with commas.")] = "all-linear",
    soft_prompt: Annotated[int, typer.Option(help="Train so many vectors that are read before each text.")] = 0,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Less memory for more time: run blocks again in the backward pass.")
    ] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="Run the backbone in bfloat16 mixed precision.")] = False,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="A template with {text} in it; repeatable: all are compared, each with a cache of its own."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Column with train, dev, test; or the test fraction. [default: column 'split', else 0.2]"),
    ] = None,
    group: Annotated[str | None, typer.Option(help="Column; rows of one group stay on one side.")] = None,
    drop_rare: Annotated[int, typer.Option(min=0, help="Leave out classes with fewer rows, and their rows.")] = 0,
    subword: Annotated[str, typer.Option(help="Tags of words: mean, first or last of a word's tokens.")] = "mean",
    viterbi: Annotated[bool, typer.Option("--viterbi", help="Entity tags: decode whole sentences.")] = False,
    model: Annotated[str | None, typer.Option(help="Where the model is, if not on the hub.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. [default: the cores there are]")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes that fit probes. [default: the cores there are]")
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare what is read of the cache with its checksums.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is in --out.")] = False,
) -> None:
    """Train heads on a cache's states, or with the model; scores are of the test rows, beside those of the probes.

    Killed, the same command goes on where it was. The folder --out is what probekit predict takes.
    """
    asked = locals().copy()
    from probekit.readspec import RunOptions
    from probekit.training.options import TrainOptions, head_options

    file = cache if cache.suffix in (".yaml", ".yml") else None
    if file is not None:
        _check_alone(context, file)
        from probekit.training.file import read_train_file

        found = read_train_file(file)
        cache, options, run, out, model = found.parts()
        prompt, jobs = list(found.prompts), jobs or found.jobs
        run = replace(
            run,
            device=device if _given(context, "device") else run.device,
            threads=threads or run.threads,
            trust_remote_code=trust_remote_code,
            overwrite=overwrite,
        )
    else:
        if target is None:
            raise SpecError("--target", "names the columns of labels", "nothing")
        heads = head_options(
            target.split(","),
            tasks=task,
            weights=weight,
            **{name: asked[name] for name in ("head", "layer", "pooling", "width", "dropout")},
        )
        given = {field.name: asked[field.name] for field in fields(TrainOptions) if field.name in asked}
        given["lora_targets"] = tuple(part.strip() for part in lora_targets.split(","))
        options = TrainOptions(heads, **given)
        run = RunOptions(device, threads, trust_remote_code=trust_remote_code, overwrite=overwrite)
    if out is not None:
        with _mistakes_of(file, context):
            check_can_fill("--out", out, overwrite=run.overwrite)
    import joblib

    from probekit.api.train import run_heads
    from probekit.cli.progress import Bars
    from probekit.cli.screen import say
    from probekit.evaluate.executor import workers

    jobs = joblib.cpu_count() if jobs is None else jobs
    with workers(jobs, fork=True) as executor, Bars() as bars, _mistakes_of(file, context):
        try:
            result = run_heads(
                cache,
                options,
                run,
                out=out,
                model=model,
                prompts=prompt or (),
                jobs=jobs,
                executor=executor,
                listener=bars,
            )
        except KeyboardInterrupt:
            kept = "nothing is kept without --out" if out is None else "the same command goes on after the last epoch"
            raise StoppedError("interrupted", kept) from None
    try:
        _show(result, as_json=as_json)
    finally:
        for text in result.warnings:
            say(f"warning: {text}")
        if out is not None:
            say(f"wrote {out}; use it with: {use_of(result, out, model, trust_remote_code=trust_remote_code)}")
        else:
            kept = "--out FOLDER keeps" if file is None else f"out: FOLDER in {file.name} keeps"
            say(f"nothing was kept; {kept} the heads, their table and card")


def use_of(result: TrainResult, out: Path, model: str | None, *, trust_remote_code: bool = False) -> str:
    """The command that uses the first of the heads in ``out``."""
    if result.heads is None:
        raise TypeError("no heads")
    card, targets = result.heads.card["cache"], result.heads.targets
    words = ["probekit", "predict", str(out)]
    words += ["--target", targets[0]] if len(targets) > 1 else []
    if model is None and str(card["revision"]).startswith("sha256:"):  # (heads on frozen states are trained without it)
        model = "MODEL_FOLDER"
    words += [] if model is None else ["--model", model]
    words += ["--trust-remote-code"] if trust_remote_code else []
    words += ["DATA"] if card["pool_over"] == "span" else ["--text", "some text"]
    return shlex.join(words)


@contextmanager
def _mistakes_of(file: Path | None, context: typer.Context) -> Iterator[None]:
    """What is wrong with an option that stands in ``file`` is said of it."""
    try:
        yield
    except UserError as error:
        option = error.source.split(" ")[0].removeprefix("--").replace("-", "_")
        if file is None or not error.source.startswith(("--", "target ")) or _given(context, option):
            raise
        from probekit.training.file import in_file

        raise in_file(error, file.name) from error


def _given(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _check_alone(context: typer.Context, file: Path) -> None:
    """Raise SpecError for options that belong in the file."""
    for name in context.params:
        if name not in BESIDE_A_FILE and _given(context, name):
            option = f"--{name.replace('_', '-')}"
            raise SpecError(f"{option} beside {file}", f"the file says everything: {name} belongs in it")


def _show(result: TrainResult, *, as_json: bool) -> None:
    """The table on stdout."""
    from probekit.cli.screen import plain_table, screen, show_json
    from probekit.report import head_table, table_rows

    if as_json:
        show_json(table_rows(result.table), indent=1)
    else:
        console = screen()
        table = plain_table(result.table)
        of_mix = table["centre_of_gravity"].notna()  # (its number is that of the probe beside it)
        table["layer"] = table["layer"].astype(str).mask(of_mix, "all")
        for part in head_table(table):
            console.print(part)
