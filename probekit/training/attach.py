"""Heads on a transformers model that somebody has in hand: one torch module, from token ids to answers by target."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from probekit.errors import SpecError
from probekit.heads.losses import CLASSES, NUMBERS, class_logits
from probekit.heads.modules import HEADS, Head, Ragged, Read, Shape
from probekit.models.backbone import Backbone
from probekit.models.blocks import Stack
from probekit.models.in_hand import as_it_was, in_hand, plain_outputs
from probekit.models.live import check_prompt, for_training, whole_model
from probekit.spec import Json
from probekit.tasks import TASKS
from probekit.training.backbone import PROMPT, give_trained
from probekit.training.options import HeadOptions
from probekit.training.origin import CHANGED, backbone_digest, check_unchanged, doubt_of_origin
from probekit.training.saved_heads import Heads, check_depth
from probekit.training.texts import Place, TextReader, Tokenised
from probekit.training.truth import link_of


@dataclass(frozen=True)
class HeadShape:
    """A new head. ``n_classes``: logits of a text (classes, or labels of which several can be right); None: a number.

    ``head``: "linear", "mlp", "attention" or "mix". ``layer``: of the model's hidden states, negative from the end;
    None for the last one (a mix reads all). ``pooling``: None for the mean (attention pools by itself). ``width``,
    ``dropout``: as in ``train``.
    """

    n_classes: int | None
    head: str = "linear"
    layer: int | None = None
    pooling: str | None = None
    width: int = 128
    dropout: float = 0.1


@dataclass(frozen=True)
class Fitted:
    """A head that fits a model. ``form``: from what it puts out to what is asked for; ``labels``: of its logits."""

    target: str
    module: Head
    place: Place
    form: Callable[[Tensor], Tensor]
    labels: tuple[Any, ...] = ()


class Attached(nn.Module):
    """A model with heads.

    ``model``: as it was handed in. ``heads``: by target ("." and "%" in a name are written as in URLs). ``prompt``:
    (K, d_embedding) soft prompt, or None. ``labels``: of each target, in the order of its logits; empty for numbers
    and for new heads. ``places``: what each head reads.
    """

    prompt: nn.Parameter | None

    def __init__(self, model: nn.Module, backbone: Backbone, fitted: Sequence[Fitted], prompt: Tensor | None) -> None:
        super().__init__()
        self.model = model
        self.heads = nn.ModuleDict({_key(one.target): one.module for one in fitted})
        self.register_parameter("prompt", None if prompt is None else nn.Parameter(prompt))
        self.labels = {one.target: one.labels for one in fitted}
        self.places = {one.target: one.place for one in fitted}
        self._forms = {one.target: one.form for one in fitted}
        self._backbone = backbone
        self.training = model.training
        self.heads.train(model.training)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Answers by target, text after text: (n_texts, n_classes) logits, (n_texts,) numbers in their own units.

        ``input_ids``: (n_rows, n_tokens). ``attention_mask``: 1 for a token, 0 for padding, on either side. A row can
        hold several texts, the ``position_ids`` of each counted from 0. ``token_type_ids``: zeros, as tokenizers give
        them for texts alone.

        Raises SpecError for a row without tokens, for position ids that don't count, and for pairs of texts.
        """
        if token_type_ids is not None and bool(token_type_ids.any()):
            raise SpecError("token_type_ids", "must be 0: texts alone are read, no pairs")
        texts = split_texts(input_ids, attention_mask, position_ids)
        where: torch.device = whole_model(self._backbone).device
        backbone = replace(self._backbone, device=where)
        with plain_outputs(backbone.model), for_training(backbone) as live:
            reader = TextReader(live, Tokenised(texts), prompt=self.prompt)
            read = reader.read(np.arange(len(texts)), list(self.places.values()))
        return {target: self._answer(target, found) for target, found in zip(self.places, read, strict=True)}

    def _answer(self, target: str, read: Read) -> Tensor:
        head = self.heads[_key(target)]
        return self._forms[target](head(_in_dtype(read, next(head.parameters()))))


@dataclass(frozen=True)
class Fitting:
    """A model that saved heads fit. ``given``: it has what was trained of it; ``doubt``: why it may be another one."""

    backbone: Backbone
    given: bool
    doubt: str


def fitting(model: nn.Module, heads: Heads, *, rendered: bool) -> Fitting:
    """Find whatever can be wrong before ``model`` is changed. Raises as ``probekit.attach``."""
    cache, source = heads.card["cache"], f"attach, heads of {', '.join(heads.targets)}"
    _check_reading(cache, rendered=rendered)
    for card in heads.card["heads"]:
        if TASKS[card["task"]].of_words:
            message = "answers whole texts; a head that tags words is for probekit.predict"
            raise SpecError(f"attach, target {card['target']}", message)
    backbone = in_hand(model, site=cache["site"], last_layer=cache.get("last_layer", "normed"))
    check_depth(heads.card, backbone.stack.n_layers)
    for card in heads.card["heads"]:
        _check_layers(card["target"], card["layers"], backbone.stack)
        if card["shape"]["d_model"] != backbone.stack.d_model:
            message = f"the model's states have {backbone.stack.d_model} dimensions"
            raise SpecError(f"head of {card['target']!r}", message, str(card["shape"]["d_model"]))
    if heads.card["soft_prompt"]:
        check_prompt(backbone)
    given = check_unchanged(model, backbone_digest(heads.files), source)
    return Fitting(backbone, given, doubt_of_origin(model, cache))


def attach_saved(model: nn.Module, heads: Heads, found: Fitting) -> Attached:
    """See ``probekit.attach``; the heads are copied, and what was trained of the backbone is given to ``model``."""
    backbone, digest = found.backbone, backbone_digest(heads.files)
    files = {name: data for name, data in heads.files.items() if not found.given or name.startswith(f"{PROMPT}/")}
    with as_it_was(model):
        prompt = give_trained(backbone, files, "heads")
    if digest is not None:
        setattr(whole_model(backbone), CHANGED, digest)
    fitted = [_saved(card, module) for card, module in zip(heads.card["heads"], heads.modules, strict=True)]
    return _attached(model, backbone, fitted, prompt)


def attach_new(model: nn.Module, heads: Mapping[str, HeadShape | Mapping[str, Any]]) -> Attached:
    """See ``probekit.attach``."""
    if not heads:
        raise SpecError("attach, heads", "at least one")
    shapes = {target: _shape(target, given) for target, given in heads.items()}
    backbone = in_hand(model)
    return _attached(model, backbone, [_new(target, shape, backbone.stack) for target, shape in shapes.items()], None)


def split_texts(
    input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
) -> list[NDArray[np.int32]]:
    """The real tokens of each text, row after row; see ``Attached.forward``."""
    ids = input_ids.detach().cpu().numpy()
    if ids.ndim != 2 or ids.dtype.kind not in "iu" or not ids.size:
        raise SpecError("input_ids", "whole numbers (n_rows, n_tokens)", f"{ids.dtype} {ids.shape}")
    mask = _beside(ids, "attention_mask", attention_mask)
    if mask is not None and not np.isin(mask, (0, 1)).all():
        raise SpecError("attention_mask", "1 for a token and 0 for padding")
    positions = _beside(ids, "position_ids", position_ids)
    texts: list[NDArray[np.int32]] = []
    for i, row in enumerate(ids):
        real = np.ones(len(row), dtype=np.bool_) if mask is None else mask[i] == 1
        if not real.any():
            raise SpecError(f"attention_mask, row {i}", "at least one token")
        cuts = np.zeros(0, dtype=np.int64)
        if positions is not None:
            steps = np.diff(positions[i][real])
            cuts = np.flatnonzero(positions[i][real][1:] == 0) + 1
            if np.delete(steps != 1, cuts - 1).any():
                raise SpecError(f"position_ids, row {i}", "must count from 0 in each text")
        texts += np.split(row[real].astype(np.int32), cuts)
    return texts


def _beside(ids: NDArray[Any], name: str, given: Tensor | None) -> NDArray[Any] | None:
    if given is None:
        return None
    if given.shape != ids.shape and (name != "position_ids" or given.shape not in (ids.shape[1:], (1, ids.shape[1]))):
        raise SpecError(name, f"of the shape of input_ids, {ids.shape}", f"{tuple(given.shape)}")
    return np.broadcast_to(given.detach().cpu().numpy(), ids.shape)


def _attached(model: nn.Module, backbone: Backbone, fitted: Sequence[Fitted], prompt: Tensor | None) -> Attached:
    for one in fitted:
        one.module.to(backbone.device).requires_grad_(True)
    return Attached(model, backbone, fitted, prompt)


@torch.no_grad()
def _saved(card: Json, module: Head) -> Fitted:
    head, link = copy.deepcopy(module), link_of(TASKS[card["task"]])
    place = Place(tuple(card["layers"]), card["pooling"])
    if link is NUMBERS:  # standardised inside: their own units are another output layer
        head.output.weight.mul_(card["scale"])
        head.output.bias.mul_(card["scale"]).add_(card["mean"])
        return Fitted(card["target"], head, place, _number)
    return Fitted(card["target"], head, place, class_logits if link is CLASSES else _as_is, tuple(card["labels"]))


def _new(target: str, shape: HeadShape, stack: Stack) -> Fitted:
    layers = tuple(range(stack.first, stack.deepest + 1))
    if shape.head != "mix":
        layer = -1 if shape.layer is None else shape.layer
        layers = (layer + stack.deepest + 1 if layer < 0 else layer,)
        _check_layers(target, layers, stack, asked=layer)
    n_answers = 1 if shape.n_classes is None else shape.n_classes
    head = HEADS[shape.head](Shape(shape.head, stack.d_model, n_answers, shape.width, shape.dropout, len(layers)))
    head.output.reset_parameters()  # training on a cache begins at zeros
    pooling = "attention" if shape.head == "attention" else shape.pooling or "mean"
    return Fitted(target, head, Place(layers, pooling), _number if shape.n_classes is None else _as_is)


def _shape(target: Any, given: Any) -> HeadShape:
    """Checked as far as it can be without the model."""
    source, known = f"attach, target {target}", [field.name for field in fields(HeadShape)]
    if not isinstance(target, str) or not target:
        raise SpecError("attach, heads", "names of targets", repr(target))
    if isinstance(given, HeadShape):
        shape = given
    elif isinstance(given, Mapping):
        for name in given:
            if name not in known:
                raise SpecError(f"{source}, {name}", f"one of {', '.join(known)}")
        if "n_classes" not in given:
            raise SpecError(f"{source}, n_classes", "must be given; None for a number")
        shape = HeadShape(**given)
    else:
        raise SpecError(source, "a HeadShape or a dict of its fields", repr(given))
    n = shape.n_classes
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
        raise SpecError(f"{source}, n_classes {n}", "a whole number of at least 1, or None for a number")
    if shape.layer is not None and (isinstance(shape.layer, bool) or not isinstance(shape.layer, int)):
        raise SpecError(f"{source}, layer {shape.layer}", "a whole number")
    asked = asdict(shape)
    del asked["n_classes"]
    HeadOptions(target, **asked)
    return shape


def _check_layers(target: str, layers: Sequence[int], stack: Stack, *, asked: int | None = None) -> None:
    if not stack.first <= layers[0] <= layers[-1] <= stack.deepest:
        shown = ", ".join(map(str, layers)) if asked is None else str(asked)
        message = f"the model's states are of layers {stack.first}..{stack.deepest}"
        raise SpecError(f"head of {target!r}, layer {shown}", message)


def _check_reading(cache: Json, *, rendered: bool) -> None:
    """Raise SpecError for heads that read texts in a way that token ids alone can't say."""
    if cache["pool_over"] != "all":
        message = f"pools over all tokens; these heads pool over the {cache['pool_over']}: use probekit.predict"
        raise SpecError("attach", message)
    if cache["side"] != "encoder":
        raise SpecError("attach", f"reads the encoder; these heads read the {cache['side']}: use probekit.predict")
    if rendered:
        return
    if cache["prompt"] is not None:
        message = f"these heads read texts inside {cache['prompt']!r}: put them there yourself and say rendered=True"
        raise SpecError("attach", message)
    if cache["chat_template"]:
        message = "these heads read texts in the model's chat template: put them there yourself and say rendered=True"
        raise SpecError("attach", message)


def _key(target: str) -> str:
    """A name that torch takes for a module, another one for each target."""
    name = target.replace("%", "%25").replace(".", "%2E")
    return f"%{ord(name[0]):02X}{name[1:]}" if hasattr(nn.ModuleDict(), name) else name


def _in_dtype(read: Read, weight: Tensor) -> Read:
    """In the head's own, after ``model.to(dtype)``."""
    return Ragged(read.states.to(weight), read.lengths) if isinstance(read, Ragged) else read.to(weight)


def _as_is(logits: Tensor) -> Tensor:
    return logits


def _number(logits: Tensor) -> Tensor:
    """(n,) of (n, 1)."""
    return logits[:, 0]
