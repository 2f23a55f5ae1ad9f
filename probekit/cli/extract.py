"""``probekit extract``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from probekit.errors import SpecError, StoppedError
from probekit.output import check_can_write


def extract(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Hugging Face model id, local folder or .gguf file.")],
    data: Annotated[
        list[str],
        typer.Argument(metavar="DATA...", help=".csv .tsv .jsonl .parquet .conll files, or a Hugging Face dataset id."),
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The cache to make (HDF5).")] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only say how long it would take and how large it would be.")
    ] = False,
    text: Annotated[str | None, typer.Option(help="Column with the text. [default: found by name]")] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Splits of a hub dataset: train,test; or the part that each file or split is: a=train,b=test "
            "(for a.csv and b.csv). [default: all, parts by their names]"
        ),
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option("--id", help="Column with the rows' ids; none numbers the rows. [default: id, if there is one]"),
    ] = None,
    layers: Annotated[str, typer.Option(help="all, or numbers and ranges: 0,4,8 or 0:12:2 or -1.")] = "all",
    pooling: Annotated[
        str | None,
        typer.Option(
            help="mean, last, first, max, mean_skip_first; several with commas. "
            "[default: encoder mean, decoder last,mean_skip_first]"
        ),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens to read per text. [default: what the model can]")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="Compute in auto, float32, bfloat16 or float16.")] = "auto",
    store_dtype: Annotated[str, typer.Option(help="Store as float32, float16 or bfloat16.")] = "float32",
    batch_tokens: Annotated[int | None, typer.Option(help="Tokens per batch. [default: by device]")] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="Keep the states of every token, too.")] = False,
    token_dtype: Annotated[str, typer.Option(help="Store token states as float32, float16 or bfloat16.")] = "float16",
    prompt: Annotated[str | None, typer.Option(help="Template around each text, with {text} in it.")] = None,
    chat_template: Annotated[
        bool, typer.Option("--chat-template", help="The model's chat template around it.")
    ] = False,
    pool_over: Annotated[
        str,
        typer.Option(help="Pool over all tokens, those of the text, or of its part start..end: all, text, span."),
    ] = "all",
    stride: Annotated[
        int | None,
        typer.Option(help="With --tokens: read long texts in pieces that share so many tokens. [default: cut them]"),
    ] = None,
    side: Annotated[str, typer.Option(help="Of an encoder-decoder model: encoder or decoder.")] = "encoder",
    site: Annotated[
        str, typer.Option(help="block (residual stream), or what attention or mlp of each block adds to it.")
    ] = "block",
    last_layer: Annotated[
        str, typer.Option(help="The deepest layer after the model's final norm (normed), before it (raw), or both.")
    ] = "normed",
    random_seed: Annotated[
        int | None, typer.Option(help="Draw the model's weights anew, as a control; any whole number.")
    ] = None,
    quantize: Annotated[str | None, typer.Option(help="8bit or 4bit weights, by bitsandbytes.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. [default: the cores there are]")] = None,
    no_store_text: Annotated[bool, typer.Option("--no-store-text", help="Leave the texts out of the cache.")] = False,
    allow_nonfinite: Annotated[bool, typer.Option("--allow-nonfinite", help="Store NaN and inf as they are.")] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a cache made from something else.")] = False,
) -> None:
    """Run texts through a frozen model and keep every layer's pooled states in one HDF5 cache.

    Interrupted, the same command goes on where it stopped; finished, it returns at once.
    """
    options = {name: value for name, value in locals().items() if name not in ("data", "out", "estimate")}
    options["store_text"] = not options.pop("no_store_text")
    from probekit.api.extract import Sources
    from probekit.api.extract import estimate as estimate_cache
    from probekit.api.extract import extract as extract_cache
    from probekit.cli.progress import Bars
    from probekit.cli.summary import print_estimate, print_summary
    from probekit.store import describe

    if estimate:
        with Bars() as bars:
            found = estimate_cache(data=Sources(data), **options, listener=bars)
        print_estimate(found)
        return
    if out is None:
        raise SpecError("--out", "names the cache to make (or ask for an --estimate only)", "nothing")
    if not out.exists():
        check_can_write("--out", out, overwrite=overwrite)
    with Bars() as bars:
        try:
            extract_cache(data=Sources(data), out=out, **options, listener=bars).close()
        except KeyboardInterrupt:
            raise StoppedError("interrupted", _how_to_resume(out)) from None
    print_summary(describe(out), full=False)


def _how_to_resume(out: Path) -> str:
    from probekit.store import partial_path, stored_spec

    unfinished = partial_path(out)
    stored = stored_spec(unfinished) if unfinished.exists() else None
    if stored is None or not stored.windows_done:
        return "nothing is kept yet; run the same command again"
    done = f"{stored.windows_done} of {stored.n_windows} windows"
    return f"{done} are kept in {unfinished}; run the same command again to go on from there"
