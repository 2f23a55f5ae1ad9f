"""Texts through the frozen model into a cache: reads, checks, resumes and reuses."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from inspect import signature
from typing import TYPE_CHECKING, Any

from probekit.arguments import names
from probekit.extraction.job import make_job, run_job
from probekit.extraction.request import Job, check_choice, check_request
from probekit.inputs.memory import texts_or_sources
from probekit.layers import layer_choice
from probekit.readspec import ReadSpec, RunOptions
from probekit.spec import Json, Listener, Silent
from probekit.store import Cache

if TYPE_CHECKING:
    from probekit.extraction.estimate import Estimate


class Sources(tuple[str, ...]):
    """Files and datasets, and no texts, which in a list of words may be meant as well."""

    __slots__ = ()


def extract(
    model: str | os.PathLike[str],
    data: Any,
    *,
    out: str | os.PathLike[str],
    labels: Any = None,
    text: str | None = None,
    split: str | Mapping[str, str] | None = None,
    id_column: str | None = None,
    layers: str | int | Sequence[int] = "all",
    pooling: str | Sequence[str] | None = None,
    max_length: int | None = None,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    store_dtype: str = "float32",
    batch_tokens: int | None = None,
    threads: int | None = None,
    store_text: bool = True,
    tokens: bool = False,
    token_dtype: str = "float16",
    prompt: str | None = None,
    chat_template: bool = False,
    pool_over: str = "all",
    stride: int | None = None,
    side: str = "encoder",
    site: str = "block",
    last_layer: str = "normed",
    random_seed: int | None = None,
    quantize: str | None = None,
    allow_nonfinite: bool = False,
    trust_remote_code: bool = False,
    overwrite: bool = False,
    listener: Listener | None = None,
) -> Cache:
    """Run every text of ``data`` through the frozen ``model`` and keep the pooled states of its layers in ``out``.

    ``model``: Hugging Face id, folder or ``.gguf`` file. ``data``: one or more files (``.csv .tsv .jsonl .parquet
    .conll .conllu``) or Hugging Face dataset ids; or a pandas DataFrame, a ``datasets.Dataset`` or ``DatasetDict`` (or
    a mapping of splits to DataFrames), or a list of texts, for which ``labels`` are n values (the column "label") or a
    mapping of columns. ``text``: the column to read; ``split``: which splits of a hub dataset, or which part each file
    or split is (``{"a": "train", "b": "test"}``); ``id_column``: by default "id", else rows are numbered, as they are
    for "none"; for a DataFrame it may name the index.

    ``layers``: ``"all"``, numbers (``[0, 4, -1]``, ``range(0, 12, 2)``) or what the command line takes (``"0:12:2"``).
    ``pooling``: names of ``probekit.pooling.POOLINGS`` in a list, or in one text with commas, by default ``mean`` for
    an encoder, ``last`` and ``mean_skip_first`` for a decoder. None and "auto" mean "as is best here". ``prompt``: a
    template with ``{text}`` in it; ``chat_template``: the model's own around that. ``pool_over``: ``"all"`` tokens,
    those of the ``"text"`` alone, without prompt and special tokens, or those of a ``"span"`` of it, which the columns
    ``start`` and ``end`` give (characters, or words where the data are words; ``end`` is the one after the last).
    ``tokens``: keep the states of every token, in ``token_dtype``. ``stride``: read texts that are too long in pieces
    that share so many tokens, instead of cutting them. ``side``: of an encoder-decoder model. ``site``: "block" for the
    residual stream, or what the "attention" or the "mlp" of each block adds to it. ``last_layer``: "normed" (after the
    model's final norm, as transformers has it), "raw" (before it) or "both", as two layers. ``random_seed``: weights
    drawn anew, as a control. ``quantize``: "8bit" or "4bit" weights, where bitsandbytes is installed.

    A finished cache made from the same things is opened at once; an unfinished one is gone on with, and its bytes are
    then those of an undisturbed run. Returns the finished cache, open.

    Raises:
        InputError: the data can't be used. ModelError: the model can't. SpecError: an option can't.
        StaleCacheError: ``out`` was made from something else. DiskError: there is no room.
        NonFiniteError: a hidden state is NaN or infinite (unless ``allow_nonfinite``) or does not fit ``store_dtype``.
    """
    asked = locals().copy()  # the arguments, before anything else has a name
    job, run = _job(model, data, asked)
    return run_job(job, out, options=run, listener=listener or Silent())


def estimate(model: str | os.PathLike[str], data: Any, *, listener: Listener | None = None, **options: Any) -> Estimate:
    """How long ``extract`` would take and how large its cache would be, from a short trial; nothing is written.

    ``options``: those of ``extract``, and raises what it would raise.
    """
    asked = signature(extract).bind(model, data, out="", **options)
    asked.apply_defaults()
    job, run = _job(model, data, asked.arguments)
    from probekit.extraction.estimate import estimate as estimate_job  # here, because it loads torch

    return estimate_job(job, options=run, listener=listener or Silent())


def _job(model: str | os.PathLike[str], data: Any, asked: Mapping[str, Any]) -> tuple[Job, RunOptions]:
    """What is to be done, and how, by the arguments of ``extract``: those called as a field is are that field."""
    check_choice("store_dtype", asked["token_dtype"], option="--token-dtype")
    given: Json = {
        **asked,
        "poolings": names(asked["pooling"], "pooling") or None,
        "device": None if asked["device"] == "auto" else asked["device"].split(":")[0],
        "dtype": None if asked["dtype"] == "auto" else asked["dtype"],
        "tokens": asked["token_dtype"] if asked["tokens"] else None,
        **dict.fromkeys(("model", "revision", "layers")),
    }
    spec = ReadSpec(**{field.name: given[field.name] for field in fields(ReadSpec) if field.name in given})
    run = RunOptions(**{field.name: asked[field.name] for field in fields(RunOptions)})
    check_request(spec)
    layers = layer_choice(asked["layers"])
    job = make_job(
        model,
        list(data) if isinstance(data, Sources) else texts_or_sources(data, asked["labels"]),
        **{name: asked[name] for name in ("text", "split", "id_column", "revision")},
        spec=spec,
        layers=layers,
    )
    return job, run
