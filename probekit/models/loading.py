"""Getting a model's weights onto the device: which device, which dtype, how many threads."""

from __future__ import annotations

import gc
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from transformers import AutoModel, BitsAndBytesConfig, PreTrainedModel, modeling_gguf_pytorch_utils
from transformers.utils import logging as transformers_logging

from probekit.errors import ModelError, SpecError
from probekit.models.backbone import Backbone, prepare
from probekit.models.config import read_config
from probekit.models.foreign import foreign
from probekit.models.source import ModelSource
from probekit.models.weights import check_size, check_weights
from probekit.readspec import ReadSpec, RunOptions

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_backbone(source: ModelSource, spec: ReadSpec, options: RunOptions) -> Backbone:
    """Load and calibrate a model, to be read as ``spec`` says on the device of ``options``.

    With several GPUs and the device "auto" the layers are spread over them.

    Raises ModelError if transformers can't load it, SpecError for a device, dtype or side that there is not.
    """
    torch.set_num_threads(options.threads or usable_cores())
    chosen_device = _choose_device(options.device)
    chosen_dtype, reason = _choose_dtype(spec.dtype, chosen_device)
    loading: dict[str, Any] = {**source.pinned, "trust_remote_code": options.trust_remote_code}
    if spec.quantize is not None:
        loading["quantization_config"] = _quantization(spec.quantize, DTYPES[chosen_dtype])
        reason = f"{reason}; weights in {spec.quantize}"
    if options.device == "auto" and torch.cuda.device_count() > 1 and spec.random_seed is None:
        loading["device_map"] = "auto"
    name = f"model {source.name}"
    with _quiet(), foreign(name, "transformers could not load it"):
        model = _load(source, DTYPES[chosen_dtype], loading, spec)
    if source.gguf_file is not None:
        gc.collect()  # it leaves its parsed tensors behind in reference cycles
    if "device_map" in loading:
        chosen_device = model.device
    with foreign(name, "it was loaded but can't be read"):
        return prepare(
            model,
            device=chosen_device,
            dtype=chosen_dtype,
            dtype_reason=reason,
            side=spec.side,
            site=spec.site,
            last_layer=spec.last_layer,
            one_by_one=spec.batching == "single",
        )


def _quantization(kind: str, dtype: torch.dtype) -> BitsAndBytesConfig:
    if kind not in ("8bit", "4bit"):
        raise SpecError(f"--quantize {kind}", "8bit or 4bit")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise SpecError(f"--quantize {kind}", "needs the package bitsandbytes: pip install bitsandbytes")
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=dtype)


def _load(source: ModelSource, dtype: torch.dtype, loading: dict[str, Any], spec: ReadSpec) -> PreTrainedModel:
    """``loading``: what ``from_pretrained`` is told besides the config and the dtype."""
    name, trust = f"model {source.name}", {"trust_remote_code": loading["trust_remote_code"]}
    config = read_config(source, **trust)
    with torch.device("meta"):
        empty = AutoModel.from_config(config, **trust)
    if empty.main_input_name != "input_ids":
        raise ModelError(name, "reads texts as token ids", f"a {config.model_type} that takes {empty.main_input_name}")
    if spec.random_seed is not None:
        check_size(name, empty, file_bytes=0, dtype=dtype)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.random_seed)
            return AutoModel.from_config(config, **trust).to(dtype)
    spread = spec.quantize is not None or "device_map" in loading
    check_size(name, empty, file_bytes=None if spread else source.weight_bytes(), dtype=dtype)
    model, found = AutoModel.from_pretrained(
        source.load_from,
        config=config,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # or they would be an error that does not name them
        **loading,
    )
    check_weights(name, model, found, side=spec.side)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and no advice of transformers' between ours; its errors come as exceptions all the same."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    bar = modeling_gguf_pytorch_utils.tqdm  # has no switch of its own
    modeling_gguf_pytorch_utils.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        modeling_gguf_pytorch_utils.tqdm = bar


def usable_cores() -> int:
    """Cores this process may run on, by affinity, by the container's CPU quota, and by ``OMP_NUM_THREADS``."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # not in a container, or an older one: affinity alone counts
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal():
        cores = min(cores, int(asked))
    return max(1, cores)


def _choose_device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SpecError(
            "--device", "auto, cpu, cuda, cuda:N or mps, as far as this machine has them", repr(name)
        ) from error
    return device


def _choose_dtype(name: str | None, device: torch.device) -> tuple[str, str]:
    if name is not None:
        if name not in DTYPES:
            raise SpecError("--dtype", f"one of auto, {', '.join(DTYPES)}", repr(name))
        return name, "as asked"
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bfloat16", "the GPU has it") if fast else ("float32", "the GPU has no bfloat16")
    capabilities = torch.cpu.get_capabilities()
    if device.type == "cpu" and (capabilities.get("amx_bf16") or capabilities.get("avx512_bf16")):
        return "bfloat16", "the processor has bfloat16 instructions"
    return "float32", "no bfloat16 instructions here"
