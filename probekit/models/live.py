"""Reading a model with gradients: the states that ``Backbone.stream`` gives, to train with, and which weights train.

Texts are padded, never packed, and the caller's mode decides what is recorded: ``torch.no_grad()`` and ``eval()`` where
nothing is to be trained. A pass may start at states read earlier, so that frozen blocks need not run again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from probekit.errors import SpecError
from probekit.models import packing
from probekit.models.backbone import EXACT, ROUNDING, Backbone, padded_inputs
from probekit.models.blocks import Stack, accepted, stream_states
from probekit.models.decoder_side import DecoderSide
from probekit.models.foreign import first_line

Sequences = Sequence[list[int] | NDArray[np.int32]]

TOLERANCE = 1e-5
"""How far a pass that starts at cached states may be from one that starts at the tokens, in float32."""


@dataclass(frozen=True)
class Form:
    """What a block puts out: the states alone (``parts`` None), or a tuple of so many parts, the states first."""

    parts: int | None


@dataclass(frozen=True)
class Start:
    """Where a pass begins: at ``states`` (total_tokens, d_model) of ``layer``, ragged, read before.

    ``form``: see ``block_form``, for a caller who starts many passes; None: it is found out anew for each.
    """

    layer: int
    states: Tensor
    form: Form | None = None


@dataclass(frozen=True)
class StartCheck:
    """How far a pass that starts at cached states is from one that starts at the tokens; both relative.

    ``layer``: the one it starts at. ``gradient_difference``: of the parameter that differs most.
    """

    layer: int
    loss_difference: float
    gradient_difference: float


class _Done(Exception):  # noqa: N818  (not an error: it ends a forward pass)
    """The first block has put out its states."""


def whole_model(backbone: Backbone) -> PreTrainedModel:
    """The transformers model itself, whichever side of it is read."""
    return backbone.model.model if isinstance(backbone.model, DecoderSide) else backbone.model


def model_type(backbone: Backbone) -> str:
    """As transformers calls the architecture."""
    return str(backbone.model.config.model_type)


@contextmanager
def for_training(backbone: Backbone) -> Iterator[Backbone]:
    """The backbone for as long as it is trained: padded, and with no block left out by chance (LayerDrop).

    Backward has to run inside too: with checkpointing it runs the forward pass again.
    """
    dropping = {module: module.layerdrop for module in backbone.model.modules() if "layerdrop" in vars(module)}
    packed = backbone.position_start is not None
    if packed:
        packing.switch_attention(backbone.model, "sdpa")
    for module in dropping:
        module.layerdrop = 0.0  # else the states after a block that is left out would count as another layer's
    try:
        yield replace(backbone, position_start=None, batching="padded: for training") if packed else backbone
    finally:
        for module, rate in dropping.items():
            module.layerdrop = rate
        if packed:
            packing.switch_attention(backbone.model, packing.NAME)


def live_states(
    backbone: Backbone,
    sequences: Sequences,
    *,
    layers: tuple[int, ...],
    prompt: Tensor | None = None,
    start: Start | None = None,
) -> dict[int, Tensor]:
    """States of ``layers`` as {layer: (total_tokens, d_model)}, ragged, in the order of ``sequences``; in float32.

    ``prompt``: (K, d_embedding) vectors read before every text; their own positions are not among the states.
    ``start``: begin there; no layer below can be asked for. Inside ``for_training`` only.

    Raises SpecError for a prompt where the model can't have one.
    """
    if backbone.model.config._attn_implementation == packing.NAME:
        raise ValueError("the model reads packed: use for_training(backbone)")
    n_prompt = 0 if prompt is None else len(prompt)
    limit = backbone.length_limit
    mixed = limit is not None and len({len(sequence) + n_prompt > limit for sequence in sequences}) > 1
    if (backbone.single or mixed) and len(sequences) > 1:
        return _one_by_one(backbone, sequences, layers=layers, prompt=prompt, start=start)
    inputs = padded_inputs(sequences, backbone.pad_id, backbone.device)
    real = inputs["attention_mask"].bool()
    if prompt is not None:
        if start is not None:
            raise SpecError("--soft-prompt", "needs passes from the tokens on, not from cached states of a layer")
        inputs = _prompted(backbone, inputs, prompt)
    if start is not None and min(layers) < start.layer:
        raise ValueError(f"layer {min(layers)} is below the start at layer {start.layer}")
    found: dict[int, Tensor] = {}

    def keep(layer: int, states: Tensor) -> None:
        # A copy, for some blocks write over what they take in; and nothing here may save a tensor for backward, or a
        # checkpointed block would miss it when it is run again without this.
        found[layer] = states.clone()

    with nullcontext(backbone.stack) if start is None else _started(backbone, sequences, start) as stack:
        stream_states(backbone.model, stack, inputs, layers=layers, receive=keep)
    missing = sorted(set(layers) - set(found))
    if missing:
        raise ValueError(f"layers {missing} are not among those that the pass goes through")
    return {layer: _single(found[layer].to(backbone.device)[:, n_prompt:][real]) for layer in sorted(found)}


def _single(states: Tensor) -> Tensor:
    """float32, or float64 as it is: whoever computes in it wants it."""
    return states if states.dtype == torch.float64 else states.float()


def _one_by_one(
    backbone: Backbone,
    sequences: Sequences,
    *,
    layers: tuple[int, ...],
    prompt: Tensor | None,
    start: Start | None,
) -> dict[int, Tensor]:
    lengths = [len(sequence) for sequence in sequences]
    starts: Iterable[Start | None] = [None] * len(lengths)
    if start is not None:
        starts = [replace(start, states=states) for states in torch.split(start.states, lengths)]
    read = [
        live_states(backbone, [sequence], layers=layers, prompt=prompt, start=here)
        for sequence, here in zip(sequences, starts, strict=True)
    ]
    return {layer: torch.cat([states[layer] for states in read]) for layer in read[0]}


# Soft prompts


def check_prompt(backbone: Backbone) -> nn.Module:
    """The table of embeddings that a soft prompt goes beside. Raises SpecError where the model can't have one."""
    refusal = SpecError("--soft-prompt", "needs a model that takes inputs_embeds", f"a {model_type(backbone)}")
    if "inputs_embeds" not in inspect.signature(backbone.model.forward).parameters:
        raise refusal
    try:
        return cast("nn.Module", whole_model(backbone).get_input_embeddings())
    except NotImplementedError as error:  # transformers' way to say that it does not know
        raise refusal from error


def _prompted(backbone: Backbone, inputs: Mapping[str, Tensor], prompt: Tensor) -> dict[str, Tensor]:
    embedded: Tensor = check_prompt(backbone)(inputs["input_ids"])
    if prompt.shape[-1] != embedded.shape[-1]:
        raise SpecError("--soft-prompt", f"vectors of {embedded.shape[-1]} numbers", str(prompt.shape[-1]))
    mask = inputs["attention_mask"]
    return {
        "inputs_embeds": torch.cat([prompt.to(embedded).expand(len(embedded), -1, -1), embedded], dim=1),
        "attention_mask": torch.cat([mask.new_ones(len(mask), len(prompt)), mask], dim=1),
    }


# Starting at cached states


class _StandIn(nn.Module):
    """What runs where a block stood; all else that the model asks it (its kind of attention, say) the block answers."""

    def __init__(self, block: nn.Module, run: Callable[..., Any]) -> None:
        super().__init__()
        vars(self).update(block=block, run=run)  # not as submodules: the block's names and modes stay its own

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["block"], name)


def first_layer(backbone: Backbone, top: int) -> int:
    """The layer whose states the top ``top`` blocks start from. Raises SpecError where there is none such."""
    source, stack = f"--backbone top:{top}", backbone.stack
    if not stack.blocks:
        raise SpecError(source, "needs a model whose blocks can be found; this one's can't")
    if stack.first:
        raise SpecError(source, "goes with --site block")
    if len(set(stack.blocks)) < stack.n_layers:
        raise SpecError(source, "needs blocks with weights of their own", f"a {model_type(backbone)}")
    if not 1 <= top <= len(stack.blocks):
        raise SpecError(source, f"1..{len(stack.blocks)} blocks")
    layer = len(stack.blocks) - top - stack.after
    if layer < 0:
        raise SpecError(source, f"a {model_type(backbone)} has no states below its first block", f"{top} blocks of it")
    trained = {id(parameter) for block in stack.blocks[-top:] for parameter in block.parameters()}
    if any(id(parameter) in trained for block in stack.blocks[:-top] for parameter in block.parameters()):
        raise SpecError(source, "needs blocks that share no weights with those below", f"a {model_type(backbone)}")
    return layer


def block_form(backbone: Backbone) -> Form:
    """What the first block puts out, seen as it reads one token; the blocks above it are taken to be alike."""
    seen: list[Form] = []

    def see(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        seen.append(Form(None if isinstance(output, Tensor) else len(output)))
        raise _Done

    handle = backbone.stack.blocks[0].register_forward_hook(see)
    try:
        with torch.no_grad(), _mode(backbone.model, training=False):  # (nothing may be drawn at random)
            inputs = padded_inputs([[backbone.pad_id]], backbone.pad_id, backbone.device)
            backbone.model(**accepted(backbone.model, inputs))
    except _Done:
        pass
    finally:
        handle.remove()
    return seen[0]


@contextmanager
def _started(backbone: Backbone, sequences: Sequences, start: Start) -> Iterator[Stack]:
    """The stack for a pass that begins at ``start``: no block below it runs, the model's own forward does.

    A stand-in for the first block that runs hands it the states. It stands outside of that block, so that a
    checkpointed block gets the same when it is run again.
    """
    stack = backbone.stack
    lengths = [len(sequence) for sequence in sequences]
    if len(start.states) != sum(lengths):
        raise ValueError(f"{len(start.states)} states for {sum(lengths)} tokens")
    padded = pad_sequence(list(torch.split(start.states, lengths)), batch_first=True)
    padded = padded.to(device=backbone.device, dtype=backbone.model.dtype)
    n_below = start.layer + stack.after
    put_out: Any = None
    if n_below:
        form = start.form or block_form(backbone)
        put_out = padded if form.parts is None else (padded, *[None] * (form.parts - 1))
    standing = [_StandIn(block, lambda *_args, **_kwargs: put_out) for block in stack.blocks[:n_below]]
    for block in stack.blocks[n_below : n_below + 1]:
        standing.append(_StandIn(block, block))
        standing[-1].register_forward_pre_hook(partial(_hand_over, padded), with_kwargs=True)
    lists = [m for m in backbone.model.modules() if isinstance(m, nn.ModuleList) and tuple(m) == stack.blocks]
    try:
        for modules in lists:
            for i, module in enumerate(standing):
                modules[i] = module
        yield replace(stack, blocks=(*standing, *stack.blocks[len(standing) :]))
    finally:
        for modules in lists:
            for i, block in enumerate(stack.blocks):
                modules[i] = block


def _hand_over(
    states: Tensor, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Put ``states`` where hidden states come in: the first argument that looks like them, as everywhere."""
    for i, value in enumerate(args):
        if _is_states(value):
            return (*args[:i], states, *args[i + 1 :]), kwargs
    name = next(name for name, value in kwargs.items() if _is_states(value))
    return args, {**kwargs, name: states}


def _is_states(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 3 and value.is_floating_point()


def check_start(backbone: Backbone, sequences: Sequences, *, top: int, layers: tuple[int, ...]) -> StartCheck:
    """Compare loss and gradients of the top ``top`` blocks between a pass from the tokens on and one from their states.

    The loss is a fixed function of the states of ``layers`` from the start on. Inside ``for_training`` only.

    Raises SpecError where they differ by more than rounding, or where no pass can start there.
    """
    source, rule = f"--backbone top:{top}", "must give the loss and gradients of the live run"
    layer = first_layer(backbone, top)
    _check_above(source, layer, layers)
    layers = tuple(k for k in layers if k >= layer)
    blocks = backbone.stack.blocks[-top:]
    trained = {id(p): p for block in blocks for p in block.parameters() if p.is_floating_point()}
    parameters = list(trained.values())
    with _mode(backbone.model, training=False), _requiring(backbone.model, parameters), torch.enable_grad():
        live = live_states(backbone, sequences, layers=(layer, *layers))
        start = Start(layer, live[layer].detach())
        expected = _loss(live, layers)
        slopes = torch.autograd.grad(expected, parameters, allow_unused=True)
        del live
        try:
            loss = _loss(live_states(backbone, sequences, layers=layers, start=start), layers)
            started = torch.autograd.grad(loss, parameters, allow_unused=True)
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise SpecError(source, rule, f"{model_type(backbone)}: {first_line(error)}") from error
    by_loss = abs(loss.item() - expected.item()) / abs(expected.item())
    check = StartCheck(layer, by_loss, _furthest(slopes, started))
    dtype = str(backbone.model.dtype).removeprefix("torch.")
    most = TOLERANCE if dtype == EXACT else ROUNDING.get(dtype, TOLERANCE)
    for what, difference in (("loss", check.loss_difference), ("gradient", check.gradient_difference)):
        if not difference <= most:  # NaN too
            raise SpecError(source, rule, f"{model_type(backbone)}: the {what} differs by {difference:.1e}")
    return check


def _check_above(source: str, layer: int, layers: tuple[int, ...]) -> None:
    if max(layers) <= layer:
        raise SpecError(source, f"trains blocks above layer {layer}, so one above it must be read", f"{max(layers)}")


def _furthest(expected: Sequence[Tensor | None], found: Sequence[Tensor | None]) -> float:
    """The largest difference between two gradients of one parameter, relative to it, or to a thousandth of the largest.

    (Some gradients are nothing but rounding: that of the bias of an attention's keys is 0.)
    """
    largest = max((float(slope.norm()) for slope in expected if slope is not None), default=0.0)
    furthest = 0.0
    for a, b in zip(expected, found, strict=True):
        if a is None and b is None:
            continue
        if a is None or b is None:
            return float("inf")
        difference = float((a.float() - b.float()).norm()) / max(float(a.float().norm()), 1e-3 * largest, 1e-30)
        if not difference <= furthest:
            furthest = difference
    return furthest


# What is trained


def trainable(
    backbone: Backbone, how: str, *, layers: tuple[int, ...], sequences: Sequences
) -> dict[str, nn.Parameter]:
    """Let the parameters that ``how`` names require gradients, and no others; they are given by name.

    ``how``: "full" for all, "top:M" for those of the top M blocks and, if the normed layer is among ``layers``, of what
    comes behind them (the final norm). What has no part in the states of ``layers``, by a trial pass over
    ``sequences``, is left out: a pooler, the blocks above. Inside ``for_training`` only.

    Raises SpecError if ``how`` is neither, or nothing is left to train.
    """
    source = f"--backbone {how}"
    named = {name: p for name, p in backbone.model.named_parameters() if p.is_floating_point()}
    top = how.removeprefix("top:")
    if how != "full":
        if top == how or not top.isdecimal():
            raise SpecError(source, "one of top:M, full")
        _check_above(source, first_layer(backbone, int(top)), layers)
        chosen = {id(p) for block in backbone.stack.blocks[-int(top) :] for p in block.parameters()}
        chosen |= _behind_blocks(backbone, layers, sequences)
        named = {name: p for name, p in named.items() if id(p) in chosen}
    parameters = list(named.values())
    slopes = trial_slopes(backbone, parameters, layers=layers, sequences=sequences)
    trained = {name: p for (name, p), slope in zip(named.items(), slopes, strict=True) if slope is not None}
    if not trained:
        raise SpecError(source, f"must have something to train below layer {max(layers)}")
    backbone.model.requires_grad_(False)
    for parameter in trained.values():
        parameter.requires_grad_(True)
    return trained


def _behind_blocks(backbone: Backbone, layers: tuple[int, ...], sequences: Sequences) -> set[int]:
    """Ids of the parameters that the normed layer passes behind the last block."""
    stack = backbone.stack
    if stack.normed_layer is None or stack.normed_layer not in layers:
        return set()

    def cut(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        return output.detach() if isinstance(output, Tensor) else (output[0].detach(), *output[1:])

    inside = {id(p) for block in stack.blocks for p in block.parameters()}
    outside = [p for p in backbone.model.parameters() if id(p) not in inside and p.is_floating_point()]
    handle = stack.blocks[-1].register_forward_hook(cut)
    try:
        slopes = trial_slopes(backbone, outside, layers=(stack.normed_layer,), sequences=sequences)
    finally:
        handle.remove()
    return {id(parameter) for parameter, slope in zip(outside, slopes, strict=True) if slope is not None}


def use_checkpointing(backbone: Backbone) -> None:
    """Keep only the states between blocks for backward, and run each block again there, whatever mode the model is in.

    (transformers' own does so in ``train()`` mode alone, where a frozen model would have its dropout on.)

    Raises SpecError if the model's blocks can't be found.
    """
    if not backbone.stack.blocks:
        raise SpecError("--checkpointing", "needs a model whose blocks can be found", f"a {model_type(backbone)}")
    for block in dict.fromkeys(backbone.stack.blocks):
        if "forward" not in vars(block):
            block.forward = partial(_run_again, block.forward)


def _run_again(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


# Trial passes


def _loss(states: Mapping[int, Tensor], layers: tuple[int, ...]) -> Tensor:
    """A fixed function of states in which every number counts: squares alone would be constant behind a norm."""
    weights = torch.linspace(0.5, 1.5, states[layers[0]].shape[-1], device=states[layers[0]].device)
    return torch.stack([(weights * states[k] + weights.flip(0) * states[k] ** 2).mean() for k in layers]).sum()


def trial_slopes(
    backbone: Backbone,
    parameters: Sequence[nn.Parameter],
    *,
    layers: tuple[int, ...],
    sequences: Sequences,
    also: Callable[[], Sequence[Tensor]] = tuple,
) -> list[Tensor | None]:
    """Gradients of a number that depends on all states of ``layers``; None for what has no part in them.

    ``also``: further tensors, asked for after the forward pass. As in training (some models go other ways then), but
    what is drawn at random is drawn again afterwards, and no ``.grad`` is touched.
    """
    devices = [backbone.device] if backbone.device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=devices),
        _mode(backbone.model, training=True),
        _requiring(backbone.model, parameters),
        torch.enable_grad(),
    ):
        loss = _loss(live_states(backbone, sequences, layers=layers), layers)
        wanted = [*parameters, *also()]
        if not loss.requires_grad or not wanted:
            return [None] * len(wanted)
        return list(torch.autograd.grad(loss, wanted, allow_unused=True))


@contextmanager
def _mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    before = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


@contextmanager
def _requiring(model: nn.Module, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """For a while these parameters require gradients, and no others."""
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, required in before.items():
            parameter.requires_grad_(required)
