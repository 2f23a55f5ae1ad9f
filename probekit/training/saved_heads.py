"""Trained heads as a folder: ``heads.safetensors``, what was trained of the backbone, and a card; no pickle."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from probekit.errors import SpecError
from probekit.extraction.reader import Reader, open_reader, prepare
from probekit.fields import (
    DIGEST,
    LABELS,
    LAYERS,
    MOST_LAYERS,
    OBJECT,
    TEXT,
    TRUTH,
    Field,
    check_fields,
    is_text,
    list_of,
    one_of,
    shown,
    whole,
)
from probekit.heads.losses import Link
from probekit.heads.modules import HEADS, Head, Ragged, Read, Shape, make_head
from probekit.models.adapters import CONFIG, WEIGHTS
from probekit.models.live import for_training
from probekit.models.source import ModelSource
from probekit.models.tokens import data_words
from probekit.output import sync, write_whole
from probekit.readspec import ReadSpec, RunOptions, check_spec, missing_to_read
from probekit.spec import POOLING_NAMES, Json, Listener
from probekit.store import stored_values
from probekit.tasks import TASKS
from probekit.training.backbone import ADAPTER, FILE, PROMPT, give_trained, live_spec, tensor_names
from probekit.training.options import SUBWORDS, is_backbone
from probekit.training.plan import TrainPlan
from probekit.training.texts import Place, TextReader, Tokenised, answer_texts
from probekit.training.truth import Answers, answers, link_of

CARD, TENSORS = "card.json", "heads.safetensors"
FORMAT, VERSION = "probekit-heads", 1
MOST_CARD_BYTES = 64 << 20
_NUMBER = Field("a number", lambda value: type(value) in (int, float) and abs(value) < 1e300)

_TOP: Mapping[str, Field] = {
    "heads": list_of("objects", lambda value: isinstance(value, dict)),
    "backbone": Field("frozen, top:M, lora or full", is_backbone),
    "trained": list_of("names of tensors", is_text),
    "soft_prompt": whole(0, 100_000),
    "n_layers": whole(0, MOST_LAYERS),
    "cache": OBJECT,
    "data": OBJECT,
    "options": OBJECT,
    "files": OBJECT,
}
_HEAD: Mapping[str, Field] = {
    "target": TEXT,
    "task": one_of(*TASKS),
    "probe": TEXT,
    "pooling": one_of(*POOLING_NAMES, *SUBWORDS, "attention"),
    "layer": whole(0, MOST_LAYERS),
    "layers": LAYERS,
    "labels": LABELS,
    "viterbi": TRUTH,
    "shape": OBJECT,
    "mean": _NUMBER,
    "scale": _NUMBER,
    "scores": OBJECT,
}
_SHAPE: Mapping[str, Field] = {
    "kind": one_of(*HEADS),
    "d_model": whole(1, 1 << 20),
    "n_answers": whole(1, 1 << 20),
    "width": whole(1, 1 << 20),
    "dropout": _NUMBER,
    "n_layers": whole(1, MOST_LAYERS),
}


@dataclass(frozen=True)
class Heads:
    """Heads and what was trained of their backbone. ``card``: JSON, with a card for each of ``modules``.

    ``files``: what is saved of the backbone, by name in the folder; empty where it is frozen.
    """

    card: Json
    modules: tuple[Head, ...]
    files: Mapping[str, bytes]

    @staticmethod
    def made(plan: TrainPlan, cards: Sequence[Json], modules: Sequence[Head], files: Mapping[str, bytes]) -> Heads:
        """Of a training that has ended."""
        cache, options = plan.cache, plan.options
        layers = sorted({layer for card in cards for layer in card["layers"]})
        spec = live_spec(cache.spec, layers) if options.tuned else ReadSpec.from_json(cache.spec)
        data: Json = {"fingerprint": cache.fingerprint}
        data |= {name: cache.spec[name] for name in ("texts", "columns") if name in cache.spec}
        card = {
            "format": FORMAT,
            "format_version": VERSION,
            "heads": list(cards),
            "backbone": options.backbone,
            "trained": tensor_names(files[FILE], FILE) if FILE in files else [],
            "soft_prompt": options.soft_prompt,
            "n_layers": int(cache.spec["n_layers"]),
            "cache": replace(spec, tokens=cache.spec.get("tokens")).for_card(),
            "data": data,
            "options": options.json(),
            "versions": {name: version(name) for name in ("probekit-layers", "torch", "transformers")},
        }
        return Heads(card, tuple(module.cpu().eval() for module in modules), dict(files))

    @property
    def targets(self) -> list[str]:
        """Of the heads, in their order."""
        return [str(head["target"]) for head in self.card["heads"]]

    @property
    def tuned(self) -> bool:
        """Whether the backbone is no longer the model's own."""
        return bool(self.files)

    def index(self, target: str | None, source: str) -> int:
        """Which head is of ``target``; None where there is one only. Raises SpecError for another."""
        return head_of(self.card, target, source)

    def save(self, folder: Path) -> list[Path]:
        """Write the folder whole beside its name, then give it the name; what was there is removed. Returns the files.

        Whether something may be there is for the caller to check.
        """
        tensors = {f"{i}.{n}": t.contiguous() for i, m in enumerate(self.modules) for n, t in m.state_dict().items()}
        files = {TENSORS: save_tensors(tensors), **self.files}
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        text = json.dumps({**self.card, "files": digests}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        folder = Path(os.path.abspath(folder))
        new = folder.with_name(f"{folder.name[:40]}.{os.getpid()}.new")
        try:
            for name, data in {**files, CARD: text.encode("utf-8", "backslashreplace")}.items():
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                write_whole(new / name, data, durable=True)
            sync(new)
            if folder.exists():
                old = folder.with_name(f"{folder.name[:40]}.{os.getpid()}.old")
                folder.rename(old)
                new.rename(folder)
                shutil.rmtree(old)
            else:
                new.rename(folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        return [folder / name for name in (*files, CARD)]

    def estimator(self, i: int) -> Answers:
        """What turns the logits of a head into labels."""
        card = self.card["heads"][i]
        return answers(_link(card), np.array(card["labels"], dtype=_label_dtype(card)), card["mean"], card["scale"])

    def open(
        self, source: ModelSource, options: RunOptions, listener: Listener, *, dtype: str | None = None
    ) -> OpenHeads:
        """The model loaded and given what was trained of it. ``dtype``: None for the one that the cache was read in.

        Raises ModelError for a model that can't be loaded, SpecError where card, files and model don't fit together.
        """
        layers = tuple(sorted({layer for head in self.card["heads"] for layer in head["layers"]}))
        spec = replace(ReadSpec.from_json(self.card["cache"]), layers=layers, poolings=(), tokens=None)
        if dtype is not None and not spec.quantize:
            spec = replace(spec, dtype=dtype)
        reader = open_reader(spec, source, options, listener=listener)
        stack = reader.backbone.stack
        check_depth(self.card, stack.n_layers)
        for head in self.card["heads"]:
            if not stack.first <= head["layers"][0] <= head["layers"][-1] <= stack.deepest:
                message = f"the model's states are of layers {stack.first}..{stack.deepest}"
                raise SpecError("card of the heads, field 'layers'", message, shown(head["layers"]))
            if head["shape"]["d_model"] != stack.d_model:
                message = f"the model's states have {stack.d_model} dimensions"
                raise SpecError("card of the heads, field 'd_model'", message, str(head["shape"]["d_model"]))
        prompt = give_trained(reader.backbone, self.files, "heads")
        if (0 if prompt is None else len(prompt)) != self.card["soft_prompt"]:
            raise SpecError("card of the heads, field 'soft_prompt'", "must be the number of vectors that are saved")
        room = reader.backbone.max_positions
        if prompt is not None and room is not None:  # no text that was learnt from was longer
            cut = min(reader.spec.max_length or room, room - len(prompt))
            reader = replace(reader, spec=replace(reader.spec, max_length=cut))
        return OpenHeads(self, reader, prompt)


@dataclass(frozen=True)
class OpenHeads:
    """Heads with their model in memory. ``prompt``: (K, d) soft prompt, or None."""

    heads: Heads
    reader: Reader
    prompt: torch.Tensor | None

    def logits(
        self,
        indices: Sequence[int],
        texts: Sequence[str],
        *,
        listener: Listener,
        spans: Sequence[Sequence[int]] | None = None,
        words: Sequence[Sequence[str]] | None = None,
    ) -> tuple[list[NDArray[np.float32]], NDArray[np.bool_]]:
        """For each head of ``indices`` (n_rows, n_answers), rows being texts or ``words``; (n_words,) unread ones.

        ``texts``: joined from ``words`` with single blanks, where these are tagged.
        """
        ids = [str(i + 1) for i in range(len(texts))]
        prepared = prepare(self.reader, texts, ids=ids, called="text", listener=listener, spans=spans)
        word = None if words is None else data_words(prepared.encoded, words)
        n_words = np.array([len(of_text) for of_text in words or []], dtype=np.int64)
        read = Tokenised(prepared.encoded.ids, prepared.forward.pool_over, word, n_words if words is not None else None)
        cards = [self.heads.card["heads"][i] for i in indices]
        of_words = [TASKS[card["task"]].of_words for card in cards]
        ends = np.cumsum(n_words)
        device = prepared.backbone.device

        def words_of(units: NDArray[np.int64]) -> NDArray[np.int64]:
            return np.concatenate([np.arange(ends[i] - n_words[i], ends[i]) for i in units])

        def whole_texts(units: NDArray[np.int64]) -> NDArray[np.int64]:
            return units

        listener.stage("reading", total=len(texts), unit="texts")
        with for_training(prepared.backbone) as backbone:
            found = answer_texts(
                TextReader(backbone, read, prompt=self.prompt),
                np.arange(len(texts)),
                [
                    (Place(tuple(card["layers"]), card["pooling"], tags), self._answer(i, device))
                    for i, card, tags in zip(indices, cards, of_words, strict=True)
                ],
                n_rows=[int(ends[-1]) if tags else len(texts) for tags in of_words],
                rows_of=[words_of if tags else whole_texts for tags in of_words],
                on_progress=listener.advance,
            )
        there = np.concatenate(
            [np.bincount(w[w >= 0], minlength=n) > 0 for w, n in zip(word or [], n_words, strict=True)]
            or [np.zeros(0, bool)]
        )
        return found, ~there

    def _answer(self, i: int, device: torch.device) -> Any:
        """A head that reads what a cache would hold: states on a frozen backbone are rounded as they were stored."""
        head, card, cache = (
            self.heads.modules[i].to(device).eval(),
            self.heads.card["heads"][i],
            self.heads.card["cache"],
        )
        of_tokens = card["pooling"] == "attention" or TASKS[card["task"]].of_words
        dtype = str(cache["tokens"] if of_tokens else cache["store_dtype"])

        def answer(read: Read) -> torch.Tensor:
            logits: torch.Tensor = head(read if self.heads.tuned else _stored(read, dtype))
            return logits

        return answer


def _stored(read: Read, dtype: str) -> Read:
    if isinstance(read, Ragged):
        return Ragged(_rounded(read.states, dtype), read.lengths)
    return _rounded(read, dtype)


def _rounded(states: torch.Tensor, dtype: str) -> torch.Tensor:
    return torch.from_numpy(stored_values(states.float().cpu().numpy(), dtype)).to(states.device)


def check_depth(card: Json, n_layers: int) -> None:
    """Raise SpecError for a model of another depth than the heads were trained on."""
    if card["n_layers"] != n_layers:
        raise SpecError("heads", f"need a model of {card['n_layers']} blocks", str(n_layers))


def head_of(card: Json, target: str | None, source: str) -> int:
    """Which of a card's heads is of ``target``; None where there is one only. Raises SpecError for another."""
    targets = [str(head["target"]) for head in card["heads"]]
    if target is None and len(targets) > 1:
        raise SpecError(source, "has heads of several targets: name one with --target", ", ".join(targets))
    if target is not None and target not in targets:
        raise SpecError(f"--target {target}", f"{source} has heads of {', '.join(targets)}")
    return 0 if target is None else targets.index(target)


def read_heads_card(folder: Path) -> Json:
    """The card of a folder of heads, every field of it checked. Raises SpecError where there is none."""
    source = f"heads {folder}"
    path = folder / CARD
    try:
        if path.stat().st_size > MOST_CARD_BYTES:
            raise SpecError(source, f"a card of at most {MOST_CARD_BYTES:,} bytes", f"{path.stat().st_size:,}")
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SpecError(
            source, f"must be a folder made by probekit train, with {CARD}", error.strerror or ""
        ) from error
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{source}, {CARD}", "must be readable JSON", str(error)[:160]) from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise SpecError(f"{source}, {CARD}", "is not the card of trained heads")
    if found.get("format_version") != VERSION or type(found["format_version"]) is not int:
        raise SpecError(
            f"{source}, {CARD}", f"this probekit reads version {VERSION}", shown(found.get("format_version"))
        )
    _check_card(found, f"{source}, {CARD}")
    return found


def _check_card(card: Json, source: str) -> None:
    missing = [name for name in _TOP if name not in card]
    if missing or not card["heads"]:
        raise SpecError(source, "must say what the heads are", f"no {', '.join(missing or ['heads'])}")
    check_fields(card, _TOP, source, SpecError)
    check_spec(card["cache"], f"{source}, cache", error=SpecError)
    of_words = False
    for head in card["heads"]:
        missing = [name for name in _HEAD if name not in head]
        if missing:
            raise SpecError(source, "must say what each head is", f"no {', '.join(missing)}")
        check_fields(head, _HEAD, source, SpecError)
        missing = [name for name in _SHAPE if name not in head["shape"]]
        if missing:
            raise SpecError(f"{source}, shape", "must say how large each head is", f"no {', '.join(missing)}")
        check_fields(head["shape"], _SHAPE, f"{source}, shape", SpecError)
        _check_head(head, source)
        of_words |= TASKS[head["task"]].of_words
    missing = missing_to_read(card["cache"], of_words=of_words)
    if missing:
        raise SpecError(source, "must say how texts are read", f"no {', '.join(missing)}")


def _check_head(head: Json, source: str) -> None:
    """Labels, logits, layers and the pooling must fit together."""
    shape, task, labels = head["shape"], TASKS[head["task"]], head["labels"]
    link = _link(head)
    expected = 1 if not labels or (len(labels) == 2 and not task.several) else len(labels)
    n_layers = len(head["layers"]) if shape["kind"] == "mix" else 1
    fits = (
        shape["n_answers"] == expected
        and bool(labels) == (link.name != "numbers")
        and shape["n_layers"] == len(head["layers"]) == n_layers
        and (head["pooling"] == "attention") == (shape["kind"] == "attention")
        and (head["pooling"] in SUBWORDS or not task.of_words)
        and head["scale"] > 0
        and 0 <= shape["dropout"] < 1
        and not (task.of_words and (not all(isinstance(x, str) for x in labels) or labels != sorted(labels)))
    )
    if not fits:
        raise SpecError(f"{source}, head of {head['target']!r}", "labels, shape, layers and pooling must fit together")


def load_heads(folder: Path) -> Heads:
    """Read a folder of heads.

    Raises SpecError where a file is missing, is not the one that the card speaks of, or holds a tensor too few or many.
    """
    card, source = read_heads_card(folder), f"heads {folder}"
    files: dict[str, bytes] = {}
    for name, digest in card["files"].items():
        if not _is_ours(name) or not DIGEST.fits(digest):
            raise SpecError(f"{source}, {CARD}, field 'files'", "must name files of the folder", shown(name))
        try:
            files[name] = (folder / name).read_bytes()
        except OSError as error:
            raise SpecError(
                f"{source}/{name}", "must be there, for the card speaks of it", error.strerror or ""
            ) from error
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise SpecError(f"{source}/{name}", f"must be the file that {CARD} speaks of", "other contents")
    if TENSORS not in files:
        raise SpecError(f"{source}, {CARD}, field 'files'", f"must name {TENSORS}")
    _check_files(card, files, source)
    modules = _filled([Shape(**{k: head["shape"][k] for k in _SHAPE}) for head in card["heads"]], files, source)
    del files[TENSORS]
    kept = {name: value for name, value in card.items() if name != "files"}
    return Heads(kept, tuple(modules), files)


def _is_ours(name: Any) -> bool:
    return name in (TENSORS, FILE, *(f"{folder}/{file}" for folder in (ADAPTER, PROMPT) for file in (CONFIG, WEIGHTS)))


def _check_files(card: Json, files: Mapping[str, bytes], source: str) -> None:
    """Raise SpecError unless there is all that was trained of the backbone, by what the card says, and no more."""
    how = card["backbone"]
    groups = {ADAPTER: how == "lora", PROMPT: card["soft_prompt"] > 0}
    expected = {f"{group}/{name}" for group, there in groups.items() if there for name in (CONFIG, WEIGHTS)}
    expected |= {TENSORS} | ({FILE} if how == "full" or how.startswith("top:") else set())
    for name in sorted({*expected} ^ {*files}):
        what = "must name" if name in expected else "must not name"
        raise SpecError(f"{source}, {CARD}, field 'files'", f"{what} {name}, of a backbone that is {how}")
    found = tensor_names(files[FILE], f"{source}/{FILE}") if FILE in files else []
    for name in sorted({*found} ^ {*card["trained"]}):
        what = "has a tensor too many:" if name in found else "lacks"
        raise SpecError(f"{source}/{FILE}", "must hold the tensors that were trained and no other", f"{what} {name}")


def _filled(shapes: Sequence[Shape], files: Mapping[str, bytes], source: str) -> tuple[Head, ...]:
    """Heads with the tensors of the file: every one, and no other. Of the file's size, whatever the card says."""
    source = f"{source}/{TENSORS}"
    try:
        found = load_tensors(files[TENSORS])
    except Exception as error:  # safetensors' own errors have no common base
        raise SpecError(source, "must be a safetensors file", str(error)[:160]) from error
    with torch.device("meta"):  # without memory
        drafts = [HEADS[shape.kind](shape) for shape in shapes]
    expected = {f"{i}.{name}": t.shape for i, draft in enumerate(drafts) for name, t in draft.state_dict().items()}
    for name in dict.fromkeys([*expected, *found]):
        if name not in found or name not in expected:
            what = "lacks" if name not in found else "has a tensor too many:"
            raise SpecError(source, "must hold the tensors of its heads, all of them and no other", f"{what} {name}")
        if found[name].shape != expected[name] or not found[name].is_floating_point():
            raise SpecError(
                f"{source}, {name}", f"must have shape {tuple(expected[name])}", f"{tuple(found[name].shape)}"
            )
        if not bool(torch.isfinite(found[name]).all()):
            raise SpecError(f"{source}, {name}", "must hold finite numbers")
    modules = tuple(make_head(shape, seed=0).eval() for shape in shapes)
    with torch.no_grad():
        for i, module in enumerate(modules):
            for name, value in module.state_dict().items():
                value.copy_(found[f"{i}.{name}"])
    return modules


def _link(head: Json) -> Link:
    return link_of(TASKS[head["task"]])


def _label_dtype(head: Json) -> Any:
    """Tags and text are text, whole numbers and truth values what they are."""
    return None if head["labels"] and not isinstance(head["labels"][0], str) else np.str_
