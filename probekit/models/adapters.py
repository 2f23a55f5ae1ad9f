"""LoRA (Hu et al. 2022) and soft prompts (Lester et al. 2021) on a backbone, in peft's own file format.

Only safetensors are read, and of peft's settings only those that this file writes too.
"""

from __future__ import annotations

import inspect
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from probekit.errors import SpecError, missing_package
from probekit.models.backbone import Backbone
from probekit.models.foreign import first_line
from probekit.models.live import Sequences, check_prompt, trial_slopes, whole_model
from probekit.output import write_whole

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
NAME = "default"
"""Of the adapter while it is on a model; files leave it out."""

PROMPT = "prompt_embeddings"

USED = ("r", "lora_alpha", "lora_dropout", "target_modules", "fan_in_fan_out", "use_rslora")
"""Those of peft's settings of a LoRA that determine states."""

SAID = (
    "task_type",
    "peft_type",
    "peft_version",
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "init_lora_weights",
    "megatron_core",
)
"""Those that say something, but change nothing in an adapter that is trained already."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA on a model. ``targets``: the linear modules that have it; ``parameters``: all of it, by name."""

    config: Any
    targets: tuple[str, ...]
    parameters: Mapping[str, nn.Parameter]


def add_lora(
    backbone: Backbone,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    targets: str | Sequence[str],
    layers: tuple[int, ...],
    sequences: Sequences,
) -> Adapter:
    """Give linear modules of the model a LoRA, in place, and let nothing else be trained.

    ``targets``: "all-linear", or how the modules' names end. Of these, all that have a part in the states of
    ``layers`` by being called, as seen in a trial pass over ``sequences`` (inside ``for_training`` only), and that
    peft's format can name. Drawn from torch's random numbers.

    Raises SpecError for an ending that no such module's name has, and without peft.
    """
    peft = _peft()
    reached = _reached(backbone, layers, sequences)
    known = _known_to_peft(peft, whole_model(backbone), reached)
    reached = {name: module for name, module in reached.items() if name in known}
    endings = [""] if targets == "all-linear" else [targets] if isinstance(targets, str) else list(targets)
    for ending in endings:
        if not any(_ends(name, ending) for name in reached):
            there = ", ".join(sorted({name.rpartition(".")[2] for name in reached})) or "none in this model"
            raise SpecError(f"--lora-targets {ending or targets}", f"one of {there}")
    chosen = {name: module for name, module in reached.items() if any(_ends(name, ending) for ending in endings)}
    config = peft.LoraConfig(
        task_type="FEATURE_EXTRACTION",
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=sorted(chosen),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in chosen.values()),
    )
    return _wrapped(backbone, config, sorted(chosen))


def _peft() -> Any:
    try:
        import peft  # noqa: PLC0415  (an extra, and slow to import)
    except ImportError as error:
        raise missing_package("--backbone lora", "peft", "train") from error
    return peft


def _ends(name: str, ending: str) -> bool:
    return not ending or name == ending or name.endswith(f".{ending}")


def _reached(backbone: Backbone, layers: tuple[int, ...], sequences: Sequences) -> dict[str, nn.Module]:
    """The linear modules whose calls have a part in the states of ``layers``, by name.

    Each call has a zero added to what it puts out; where that zero has a gradient the module counts. A weight that is
    used without a call has none, nor has a pooler behind the last layer.
    """
    model = whole_model(backbone)
    zeros: dict[str, Tensor] = {}

    def add_zero(name: str, output: Any) -> Any:
        if not isinstance(output, Tensor):
            return output  # a Linear that does something of its own (Llama 4's router)
        if name not in zeros:
            zeros[name] = torch.zeros((), device=output.device, requires_grad=True)
        return output + zeros[name]

    blocks = set(backbone.stack.blocks)  # one of them may itself be what a site reads
    uncalled = _used_uncalled(model)
    linear = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module not in blocks and name not in uncalled
    }
    handles = [
        module.register_forward_hook(lambda _module, _args, output, name=name: add_zero(name, output))
        for name, module in linear.items()
    ]
    try:
        slopes = trial_slopes(backbone, [], layers=layers, sequences=sequences, also=lambda: list(zeros.values()))
    finally:
        for handle in handles:
            handle.remove()
    return {name: linear[name] for name, slope in zip(zeros, slopes, strict=True) if slope is not None}


def _used_uncalled(model: nn.Module) -> set[str]:
    """Names of modules of which the one around says ``self.name.weight``, as where a fused kernel stands in for a call.

    Mamba does so on a GPU alone: a LoRA trained elsewhere would have no part in its states there.
    """
    return {
        f"{name}.{last}".lstrip(".")
        for name, module in model.named_modules()
        for last, _ in module.named_children()
        if re.search(rf"(?<!isinstance\()self\.{last}\.weight\b(?!\.)", _source(type(module)))  # type: ignore[arg-type]
    }


@cache
def _source(kind: Any) -> str:
    """Of a class, empty where there is none to read. (Kept: Python parses the whole file for it.)"""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return ""


def _known_to_peft(peft: Any, model: nn.Module, names: Iterable[str]) -> set[str]:
    """Those of ``names`` that peft too takes for these modules.

    In mixtures of experts it takes some (a shared expert's ``up_proj``) for the experts' weights, which had such names
    before transformers 5, whoever loads the adapter.
    """
    try:
        from peft.utils.transformers_weight_conversion import (  # noqa: PLC0415
            convert_peft_config_for_transformers as convert,
        )
    except ImportError:  # an older one, which does nothing of the kind
        return set(names)

    def keeps(names: list[str]) -> bool:
        config = peft.LoraConfig(target_modules=names)
        try:
            convert(config, model, None)
        except ValueError:  # (it wants several at once, for weights that were fused)
            return False
        return set(config.target_modules) == set(names)

    names = list(names)
    return set(names) if keeps(names) else {name for name in names if keeps([name])}


def _wrapped(backbone: Backbone, config: Any, targets: Sequence[str]) -> Adapter:
    """Put the LoRA of ``config`` on the model; raise ValueError if other modules than ``targets`` would have it."""
    peft, model = _peft(), whole_model(backbone)
    with _quiet():
        wrapper = peft.get_peft_model(model, config, adapter_name=NAME)
    config.base_model_name_or_path = None  # it may be a path of this machine
    found = sorted({name.rpartition(".lora_A.")[0] for name, _ in model.named_modules() if ".lora_A." in name})
    if found != sorted(targets):
        raise ValueError(f"peft chose other modules: {sorted({*found} ^ {*targets})}")
    named = {name: p for name, p in wrapper.named_parameters() if ".lora_" in name}
    model.requires_grad_(False)
    for parameter in named.values():
        parameter.requires_grad_(True)
    wrapper.train(model.training)
    return Adapter(config, tuple(found), {name.replace(f".{NAME}.", "."): p for name, p in named.items()})


@contextmanager
def _quiet() -> Iterator[None]:
    """Without peft's remark on Conv1D, whose weights lie the other way round, and transformers' on a name in peft."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        yield


def save_adapter(adapter: Adapter, folder: Path) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors``, which plain peft reads too."""
    plain = _peft().LoraConfig(task_type="FEATURE_EXTRACTION", inference_mode=True).to_dict()
    used = {name: value for name, value in adapter.config.to_dict().items() if name in USED}
    settings = plain | used | {"target_modules": list(adapter.targets)}
    _write(folder, settings, {name: parameter.detach() for name, parameter in adapter.parameters.items()})


def load_adapter(backbone: Backbone, folder: Path) -> Adapter:
    """Put a saved LoRA on the backbone's model, in place; it may be trained on.

    Raises SpecError, with the model left as it was, for a folder that is not one, for settings that this file does not
    write, and for tensors that are missing, too many or of another shape.
    """
    peft, source = _peft(), f"adapter {folder}"
    settings = _lora_settings(peft, source, _settings(folder, "LORA"))
    linear = {
        name: module
        for name, module in whole_model(backbone).named_modules()
        if any(_ends(name, ending) for ending in settings["target_modules"])
    }
    other = next((name for name, module in linear.items() if not isinstance(module, nn.Linear | Conv1D)), None)
    if other is not None or not linear:
        rule = f"{source}, target_modules"
        raise SpecError(rule, "must name linear modules of this model", other or ", ".join(settings["target_modules"]))
    tensors, expected = _tensors(folder), _shapes(linear, rank=settings["r"])
    for name in sorted({*expected} ^ {*tensors}):
        raise SpecError(source, f"must have the tensor {name}" if name in expected else f"has no use for tensor {name}")
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape:
            raise SpecError(f"{source}, {name}", f"must be of shape {shape}", f"{tuple(tensors[name].shape)}")
    config = peft.LoraConfig(task_type="FEATURE_EXTRACTION", **settings | {"target_modules": sorted(linear)})
    devices = [backbone.device] if backbone.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):  # (what is drawn here is written over)
        adapter = _wrapped(backbone, config, sorted(linear))
    with torch.no_grad():
        for name, parameter in adapter.parameters.items():
            parameter.copy_(tensors[name])
    return adapter


def _lora_settings(peft: Any, source: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a config's settings that determine states, checked."""
    plain = peft.LoraConfig().to_dict()
    for name, value in settings.items():
        if name not in (*USED, *SAID) and value != plain.get(name):
            raise SpecError(f"{source}, {name}", "must be what peft has of its own accord", repr(value))
    used = {name: settings.get(name, plain[name]) for name in USED}
    targets = used["target_modules"]
    allowed = {
        "r": (isinstance(used["r"], int) and used["r"] > 0, "an integer above 0"),
        "lora_alpha": (isinstance(used["lora_alpha"], int | float), "a number"),
        "lora_dropout": (isinstance(used["lora_dropout"], int | float) and 0 <= used["lora_dropout"] <= 1, "0..1"),
        "target_modules": (isinstance(targets, list) and all(isinstance(t, str) and t for t in targets), "names"),
        "fan_in_fan_out": (isinstance(used["fan_in_fan_out"], bool), "true or false"),
        "use_rslora": (isinstance(used["use_rslora"], bool), "true or false"),
        # (Others start by changing the model's own weights.)
        "init_lora_weights": (settings.get("init_lora_weights", True) in (True, False, "gaussian"), "true or false"),
    }
    for name, (is_right, what) in allowed.items():
        if not is_right:
            raise SpecError(f"{source}, {name}", f"must be {what}", repr(settings.get(name)))
    return used


def _shapes(linear: Mapping[str, nn.Module], *, rank: int) -> dict[str, tuple[int, int]]:
    """What tensors a LoRA on these modules has, by the names of peft's files."""
    shapes = {}
    for name, module in linear.items():
        layer: Any = module
        sizes = (layer.nx, layer.nf) if isinstance(module, Conv1D) else (layer.in_features, layer.out_features)
        shapes[f"base_model.model.{name}.lora_A.weight"] = (rank, int(sizes[0]))
        shapes[f"base_model.model.{name}.lora_B.weight"] = (int(sizes[1]), rank)
    return shapes


# Soft prompts


def new_prompt(backbone: Backbone, k: int) -> nn.Parameter:
    """``k`` vectors to train, float32 (k, d_embedding): the embeddings of tokens drawn from torch's random numbers.

    Raises SpecError where the model can't have a soft prompt.
    """
    if k < 1:
        raise SpecError("--soft-prompt", "at least 1", str(k))
    table = check_prompt(backbone)
    vocabulary = backbone.vocabulary or int(backbone.model.config.get_text_config().vocab_size)
    with torch.no_grad():
        vectors: Tensor = table(torch.randint(vocabulary, (k,)).to(backbone.device))
    return nn.Parameter(vectors.float().clone())


def save_prompt(prompt: Tensor, folder: Path) -> None:
    """Write the (K, d_embedding) vectors as peft writes those of prompt tuning."""
    k, width = prompt.shape
    config = _peft().PromptTuningConfig(
        task_type="FEATURE_EXTRACTION", num_virtual_tokens=k, token_dim=width, num_transformer_submodules=1
    )
    _write(folder, config.to_dict() | {"inference_mode": True}, {PROMPT: prompt.detach()})


def load_prompt(folder: Path) -> Tensor:
    """The (K, d_embedding) vectors that ``save_prompt`` wrote. Raises SpecError if there are none such."""
    source, settings, tensors = f"prompt {folder}", _settings(folder, "PROMPT_TUNING"), _tensors(folder)
    for name in sorted({PROMPT} ^ {*tensors}):
        raise SpecError(source, f"must have the tensor {PROMPT} and no other", name if name != PROMPT else "none")
    said = (settings.get("num_virtual_tokens"), settings.get("token_dim"))
    if tuple(tensors[PROMPT].shape) != said:
        raise SpecError(f"{source}, {PROMPT}", f"must be of shape {said}", f"{tuple(tensors[PROMPT].shape)}")
    return tensors[PROMPT]


# Files


def _write(folder: Path, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """The weights first: a folder with a config is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / WEIGHTS, save({k: v.contiguous().cpu() for k, v in tensors.items()}, {"format": "pt"}))
    write_whole(folder / CONFIG, json.dumps(settings, indent=2, sort_keys=True).encode())


def _settings(folder: Path, kind: str) -> dict[str, Any]:
    """The config in a folder. Raises SpecError if it is not of this ``kind`` of peft's."""
    source = str(folder / CONFIG)
    try:
        settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SpecError(source, "must be JSON that can be read", first_line(error)) from error
    if not isinstance(settings, dict) or settings.get("peft_type") != kind:
        raise SpecError(source, f"must have peft_type {kind}")
    return settings


def _tensors(folder: Path) -> dict[str, Tensor]:
    source = str(folder / WEIGHTS)
    try:
        tensors: dict[str, Tensor] = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError, ValueError) as error:
        raise SpecError(source, "must be a safetensors file that can be read", first_line(error)) from error
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise SpecError(f"{source}, {name}", "must hold finite numbers")
    return tensors
