"""The model that a cache was read by, made ready to be trained: what of it changes, and whether it reads as it did."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from probekit.errors import ModelError, SpecError
from probekit.extraction.reader import Reader, open_reader, prepare
from probekit.extraction.spans import END, START
from probekit.heads.loop import Rows
from probekit.heads.modules import dense, tokens
from probekit.models.adapters import Adapter, add_lora, load_adapter, load_prompt, new_prompt, save_adapter, save_prompt
from probekit.models.backbone import Backbone
from probekit.models.live import block_form, check_start, first_layer, for_training, trainable, use_checkpointing
from probekit.models.source import ModelSource
from probekit.models.tokens import data_words
from probekit.readspec import ReadSpec, RunOptions
from probekit.spec import Json, Listener
from probekit.store import Cache
from probekit.training.options import TrainOptions
from probekit.training.texts import Place, TextReader, Tokenised

FILE = "backbone.safetensors"
ADAPTER, PROMPT = "adapter", "prompt"
"""Folders in peft's own format."""

TRIED = 8
"""Texts by which a model is tried before it is trained."""

CLOSE = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.1}
"""How far a cached row may be from the live one, relative to its norm, by the least exact dtype on its way."""


@dataclass
class Tuned:
    """A backbone and what of it is trained. ``parameters``: by name, soft prompt aside. ``dropout``: its modules whose
    dropout is on in training.
    """

    reader: TextReader
    parameters: Mapping[str, nn.Parameter]
    dropout: Sequence[nn.Module]
    adapter: Adapter | None = None

    def files(self) -> dict[str, bytes]:
        """What has to be saved of it, by the names of files."""
        found: dict[str, bytes] = {}
        adapter = self.adapter
        if adapter is not None:
            found |= _files(ADAPTER, lambda folder: save_adapter(adapter, folder))
        elif self.parameters:
            found[FILE] = save({name: p.detach().cpu().contiguous() for name, p in self.parameters.items()})
        if self.reader.prompt is not None:
            prompt = self.reader.prompt.detach()
            found |= _files(PROMPT, lambda folder: save_prompt(prompt, folder))
        return found


def live_spec(cache: Json, layers: Sequence[int]) -> ReadSpec:
    """To read as a cache was read, in full precision, which small steps need."""
    spec = ReadSpec.from_json(cache)
    if spec.stride is not None:
        raise SpecError("--backbone", "needs texts that are read whole; the cache was made with --stride")
    if spec.quantize is not None:
        raise SpecError("--backbone", "needs the model's own weights; the cache was made with --quantize")
    return replace(spec, layers=tuple(layers), tokens=None, dtype="float32")


def tokenise(reader: Reader, cache: Cache, listener: Listener) -> Tokenised:
    """The texts of a cache, as its model reads them."""
    spans = None
    if reader.spec.pool_over == "span":
        columns = [cache.column(name).tolist() for name in (START, END)]
        spans = list(zip(*columns, strict=True))
    ids = [str(i) for i in cache.ids]
    prepared = prepare(
        reader, cache.texts, ids=ids, called=f"{cache.path.name}, example", listener=listener, spans=spans
    )
    words = cache.words
    return Tokenised(
        prepared.encoded.ids,
        prepared.forward.pool_over,
        None if words is None else data_words(prepared.encoded, words),
        None if words is None else np.array([len(of_text) for of_text in words]),
    )


@contextmanager
def open_live(
    cache: Cache,
    source: ModelSource,
    options: TrainOptions,
    run: RunOptions,
    *,
    places: Sequence[Place],
    rows: Rows,
    listener: Listener,
) -> Iterator[TextReader]:
    """The model, its texts and nothing changed yet; compared with the cache on some of ``rows``.

    Raises ModelError where the states are not those of the cache.
    """
    layers = sorted({layer for place in places for layer in place.layers})
    reader = open_reader(live_spec(cache.spec, layers), source, run, listener=listener)
    texts = tokenise(reader, cache, listener)
    with for_training(reader.backbone) as backbone:
        live = TextReader(backbone, texts, bf16=options.bf16)
        check_cached(cache, replace(live, bf16=False), places, rows[:TRIED])
        yield live


@torch.no_grad()
def check_cached(cache: Cache, live: TextReader, places: Sequence[Place], rows: Rows) -> float:
    """How far cached rows are from live ones, relative; raises ModelError beyond what rounding explains."""
    of_tokens = any(place.of_words or place.pooling == "attention" for place in places)
    most = max(CLOSE[str(cache.spec[name])] for name in ("dtype", "store_dtype", *(["tokens"] if of_tokens else [])))
    worst = 0.0
    for place in places:
        for layer in place.layers:
            if place.of_words or place.pooling == "attention":
                found, stored = _tokens_beside(cache, live, layer, rows)
            else:
                (read,) = live.read(rows, [Place((layer,), place.pooling)])
                found = dense(read).cpu().numpy()
                stored = np.asarray(cache.layer(layer, place.pooling)[rows], dtype=np.float32)
            gap = np.linalg.norm(found - stored, axis=1) / np.maximum(np.linalg.norm(stored, axis=1), 1e-12)
            worst = max(worst, float(gap.max()))
    if worst > most:
        message = f"must give the states of {cache.path.name}, within {most:g} of them"
        raise ModelError(f"model {cache.model}", message, f"a relative difference of {worst:.2g}")
    return worst


def _tokens_beside(
    cache: Cache, live: TextReader, layer: int, rows: Rows
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """All tokens of ``rows`` at a layer, live and as the cache has them, (total_tokens, d_model) each."""
    (read,) = live.read(rows, [Place((layer,), "attention")])
    stored = cache.tokens(layer)
    return tokens(read).states.cpu().numpy(), np.concatenate([stored[int(i)] for i in rows]).astype(np.float32)


def make_trainable(
    cache: Cache, live: TextReader, options: TrainOptions, *, places: Sequence[Place], rows: Rows, listener: Listener
) -> Tuned:
    """Decide what of the backbone is trained, as ``options`` say. Draws from torch's generator."""
    backbone = live.backbone
    layers = tuple(sorted({layer for place in places for layer in place.layers}))
    some = [live.texts.ids[i] for i in rows[:TRIED]]
    if options.soft_prompt:
        longest = max(len(row) for row in live.texts.ids)
        if backbone.max_positions is not None and longest + options.soft_prompt > backbone.max_positions:
            raise SpecError(
                f"--soft-prompt {options.soft_prompt}",
                f"must leave room: the model has {backbone.max_positions} positions and a text has {longest} tokens",
            )
        live = replace(live, prompt=nn.Parameter(new_prompt(backbone, options.soft_prompt)))
    if options.checkpointing:
        use_checkpointing(backbone)
    if options.backbone == "frozen":
        return Tuned(live, {}, ())
    if options.backbone == "lora":
        adapter = add_lora(
            backbone,
            rank=options.lora_rank,
            alpha=options.lora_alpha or 2 * options.lora_rank,
            dropout=options.lora_dropout,
            targets="all-linear" if options.lora_targets == ("all-linear",) else list(options.lora_targets),
            layers=layers,
            sequences=some,
        )
        dropping = [module for name, module in backbone.model.named_modules() if name.endswith("lora_dropout")]
        return Tuned(live, adapter.parameters, dropping, adapter)
    if options.top is not None:
        first = first_layer(backbone, options.top)
        check = check_start(backbone, some, top=options.top, layers=layers)
        listener.note(
            f"top:{options.top}: a pass from live states of layer {first} was compared with the whole live pass, on "
            f"{len(some)} texts: loss within {check.loss_difference:.1g}, gradients within "
            f"{check.gradient_difference:.1g}; training starts from the cache's tokens of layer {first} as they are "
            f"stored, in {cache.spec['tokens']}"
        )
        live = replace(live, start=(first, cache.tokens(first)), form=block_form(backbone))
    names = trainable(backbone, options.backbone, layers=layers, sequences=some)
    dropout = backbone.stack.blocks[-options.top :] if options.top is not None else (backbone.model,)
    return Tuned(live, names, dropout)


def give_trained(backbone: Backbone, files: Mapping[str, bytes], source: str) -> Tensor | None:
    """Give a model what was trained of it, in place; returns the soft prompt, if there is one.

    Raises SpecError for a tensor too few or too many, with the model left as it was.
    """
    tensors: dict[str, Tensor] = {}
    if FILE in files:
        try:
            tensors = load(files[FILE])
        except (SafetensorError, ValueError) as error:
            raise SpecError(f"{source}/{FILE}", "must be a safetensors file", str(error)[:160]) from error
    parameters = dict(backbone.model.named_parameters())
    for name, value in tensors.items():
        if name not in parameters or parameters[name].shape != value.shape or not value.isfinite().all():
            raise SpecError(f"{source}/{FILE}", "must hold finite tensors of its model alone", name)
    with _as_folder(files, source) as folder:
        there = {name.partition("/")[0] for name in files}
        prompt = load_prompt(folder / PROMPT).to(backbone.device) if PROMPT in there else None
        if ADAPTER in there:
            load_adapter(backbone, folder / ADAPTER)
    with torch.no_grad():
        for name, value in tensors.items():
            parameters[name].copy_(value)
    return prompt


@contextmanager
def _as_folder(files: Mapping[str, bytes], source: str) -> Iterator[Path]:
    """Where peft can read ``files``; what is wrong there is said of ``source``."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file, data in files.items():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_bytes(data)
        try:
            yield folder
        except SpecError as error:
            raise SpecError(error.source.replace(name, source), error.allowed, error.got) from error


def tensor_names(data: bytes, source: str) -> list[str]:
    """Those of a safetensors file, sorted, by its header alone. Raises SpecError for something else."""
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return sorted(name for name in header if name != "__metadata__")
    except (ValueError, RecursionError, TypeError) as error:
        raise SpecError(source, "must be a safetensors file") from error


def _files(name: str, write: Callable[[Path], None]) -> dict[str, bytes]:
    with TemporaryDirectory() as folder:
        write(Path(folder))
        return {f"{name}/{path.name}": path.read_bytes() for path in sorted(Path(folder).iterdir())}
