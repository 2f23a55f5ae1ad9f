"""Whether a model in hand is the one that heads were trained on: where it is from, and what was given to it since."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from probekit.errors import ModelError, SpecError
from probekit.models.source import locate
from probekit.spec import Json
from probekit.training.backbone import PROMPT

CHANGED = "probekit_heads"
"""The attribute of a model that says which heads changed it: the SHA-256 of what they brought for it, in hex."""


def backbone_digest(files: Mapping[str, bytes]) -> str | None:
    """SHA-256 of what ``files`` change in a model; None where that is nothing, as of a soft prompt."""
    whole = hashlib.sha256()
    changing = sorted(name for name in files if not name.startswith(f"{PROMPT}/"))
    for name in changing:
        whole.update(name.encode() + b"\0" + hashlib.sha256(files[name]).digest())
    return whole.hexdigest() if changing else None


def check_unchanged(model: nn.Module, digest: str | None, source: str) -> bool:
    """Whether heads that need the model of ``digest`` (see ``backbone_digest``) find just that already.

    Raises SpecError for a model that other heads changed.
    """
    found = {str(vars(module)[CHANGED]) for module in model.modules() if CHANGED in vars(module)}
    if not found - {digest}:
        return bool(found)
    needed = "as it was loaded" if digest is None else "as it was loaded, which they change themselves"
    got = ", ".join(sorted(name[:12] for name in found))
    raise SpecError(source, f"need the model {needed}: load it anew", f"one that other heads changed ({got}…)")


def doubt_of_origin(model: Any, cache: Json) -> str:
    """Why it can't be told that the weights of ``model`` are those that the cache was read by; empty where it can.

    ``cache``: the spec of what heads were trained on. Raises ModelError for other weights.
    """
    expected, where = str(cache["revision"]), str(getattr(model, "name_or_path", None) or "")
    if cache.get("random_seed") is not None:
        return "the heads are of random weights"
    if not where:
        return "it does not say where it is from"
    commit = getattr(model.config, "_commit_hash", None)  # (transformers 5.23 says none)
    folder = Path(os.path.expanduser(where))
    is_local = folder.is_dir() and not commit
    if is_local != expected.startswith("sha256:"):
        there = "local" if is_local else "on the hub"
        return f"the heads are of {cache['model']} at {expected[:19]}…, the model is from {where}, {there}"
    try:
        found = commit or locate(_file_of(folder) if is_local else where).revision
    except ModelError as error:
        return str(error)
    if found == expected:
        return ""
    if not commit and not is_local and where == cache["model"]:
        return f"{where} is at {found[:19]}… now, the heads are of {expected[:19]}…, and the model says no revision"
    if is_local and any(folder.glob("*.gguf")) and (folder / "config.json").is_file():
        return f"{folder.name} holds several models"
    message = f"must be the one that was read, with revision {expected[:19]}…"
    raise ModelError(f"model {where}", message, f"{found[:19]}…")


def _file_of(folder: Path) -> Path:
    """The folder itself, or the one GGUF file in it that the model must be from. Raises ModelError for several."""
    files = sorted(folder.glob("*.gguf"))
    if not files or (folder / "config.json").is_file():
        return folder
    if len(files) > 1:
        raise ModelError(f"model {folder}", "holds several .gguf files")
    return files[0]
