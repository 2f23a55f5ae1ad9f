"""Where a model comes from and which version it is, found out without loading torch."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from probekit.errors import ModelError

TOKENIZER_FILES = ("*token*", "vocab*", "merges.txt", "*.model", "chat_template*")
WEIGHT_FILES = ("config.json", "*.safetensors", "*.bin", "*.py")
ADAPTER_FILES = ("adapter_config.json", "adapter_model.*")
LARGE = 16 << 20
"""Bytes from which a file is hashed once in a process, as long as it does not change."""
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class ModelSource:
    """A model as named by the user, pinned to one version.

    ``load_from``: what transformers is given (folder or hub id). ``gguf_file``: the file in that folder, for GGUF.
    ``name``: short and free of machine paths. ``revision``: the hub commit, or "sha256:..." over the weights.
    ``tokenizer_hash``: SHA-256 over the tokenizer's files; where these are part of the revision, the revision.
    """

    name: str
    load_from: str
    revision: str
    tokenizer_hash: str
    gguf_file: str | None = None
    on_hub: bool = False

    @property
    def pinned(self) -> dict[str, str | None]:
        """The arguments by which transformers loads this file or version from ``load_from``."""
        return {"gguf_file": self.gguf_file, "revision": self.revision if self.on_hub else None}

    def weight_bytes(self) -> int | None:
        """Of the files that hold the weights; None for a model on the hub, which may not be here yet."""
        if self.on_hub:
            return None
        patterns = (self.gguf_file,) if self.gguf_file else ("*.safetensors", "*.bin")
        return sum(file.stat().st_size for file in _matching(Path(self.load_from), patterns))


def locate(model: str | Path, *, revision: str | None = None) -> ModelSource:
    """Pin a hub id, a local folder or a ``.gguf`` file to a version.

    Raises ModelError where nothing is there, or no model, and for a revision of something that has none.
    """
    path = Path(os.path.expanduser(model))
    if path.exists():
        if revision is not None:
            raise ModelError(
                "--revision", "goes with a hub model; a local one is pinned by its contents", repr(revision)
            )
        return _locate_gguf(path) if path.is_file() else _locate_folder(path)
    name = str(model)
    if path.suffix == ".gguf" or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"model {name}", "there is no such file or folder")
    return _locate_on_hub(name, revision)


def _locate_gguf(path: Path) -> ModelSource:
    if path.suffix != ".gguf":
        raise ModelError(
            f"model {path}", "must be a hub id, a folder or a .gguf file", f"a {path.suffix or 'bare'} file"
        )
    _check_files([path])
    digest = _sha256([path])
    return ModelSource(path.stem, str(path.parent), digest, digest, gguf_file=path.name)


def _locate_folder(path: Path) -> ModelSource:
    _refuse_adapter(f"model {path}", [file.name for file in _matching(path, ADAPTER_FILES)])
    if not (path / "config.json").is_file():
        raise ModelError(
            f"model {path}", "a model folder holds config.json, weights and tokenizer files", "no config.json"
        )
    weights, tokenizer = _matching(path, WEIGHT_FILES), _matching(path, TOKENIZER_FILES)
    _check_files([*weights, *tokenizer])
    _check_config(path / "config.json")
    name = "/".join(path.resolve().parts[-2:])
    return ModelSource(name, str(path), _sha256(weights), _sha256(tokenizer))


def _refuse_adapter(what: str, files: list[str]) -> None:
    """transformers loads the weights beside an adapter without it, or not, depending on what else is installed."""
    if files:
        message = "is an adapter or has one beside it: merge it into its model first (peft's merge_and_unload)"
        raise ModelError(what, message, files[0])


def _check_files(files: list[Path]) -> None:
    for file in files:
        try:
            with file.open("rb") as stream:
                beginning = stream.read(len(LFS_POINTER))
        except OSError as error:
            raise ModelError(f"model file {file}", "can't be read", error.strerror or "") from error
        if beginning == LFS_POINTER:
            raise ModelError(f"model file {file}", "is a Git LFS pointer, not the file itself: git lfs pull")


def _check_config(file: Path) -> None:
    try:
        config = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelError(f"model file {file}", f"must be JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"model file {file}", "must be a JSON object", type(config).__name__)


def _locate_on_hub(name: str, revision: str | None) -> ModelSource:
    # Submodules by name: as attributes of huggingface_hub they exist only once something else has imported them.
    # Costs 0.3 s, which a local model doesn't need.
    from huggingface_hub import HfApi, constants, try_to_load_from_cache  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError  # noqa: PLC0415
    from huggingface_hub.errors import HTTPError as AnyHTTPError  # type: ignore[attr-defined]  # noqa: PLC0415

    what = f"model {name}" + (f" at revision {revision}" if revision else "")
    try:
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError as error:
        raise ModelError(what, "must be a hub id (org/name), a folder or a .gguf file") from error
    commit = None
    cached_adapter = try_to_load_from_cache(name, ADAPTER_FILES[0], revision=revision)
    files = [ADAPTER_FILES[0]] if isinstance(cached_adapter, str) else []
    try:
        if not constants.HF_HUB_OFFLINE:
            info = HfApi().model_info(name, revision=revision)
            commit = info.sha
            files += [file.rfilename for file in info.siblings or ()]
    except HfHubHTTPError as error:
        if getattr(error.response, "status_code", None) in (401, 403, 404):
            raise ModelError(
                what, "not on the hub, or not readable with your token (and no such local path)"
            ) from error
    except (AnyHTTPError, OSError):  # the HTTP library's own base class, whichever library this version is built on
        pass  # no network: an earlier download may do
    _refuse_adapter(what, [file for file in files if file in ADAPTER_FILES])
    if commit is None and isinstance(cached, str):
        commit = Path(cached).parent.name
    if commit is None:
        raise ModelError(what, "no such local path, not in the hub cache, and the hub can't be reached (or is off)")
    return ModelSource(name, name, commit, commit, on_hub=True)


def _matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})


def _sha256(files: list[Path]) -> str:
    """Hash names and contents; the folder's own name and the files' times don't count."""
    whole = hashlib.sha256()
    for file in files:
        found = file.stat()
        once = _kept_digest if found.st_size >= LARGE else _digest
        digest = once(os.path.realpath(file), found.st_size, found.st_mtime_ns, found.st_ino)
        whole.update(os.fsencode(file.name) + b"\0" + digest)
    return "sha256:" + whole.hexdigest()


def _digest(path: str, *_as_it_is: int) -> bytes:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


_kept_digest = lru_cache(maxsize=256)(_digest)
"""Of a file that is as it was; to read gigabytes again takes long."""
