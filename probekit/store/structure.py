"""What is in a file, checked before it is used: a cache from a stranger is data, not a friend.

Nothing is read but metadata until every link, dataset and attribute has been looked at. Accepted are hard links to
groups and to contiguous datasets of plain numbers, booleans or UTF-8 strings that lie wholly inside the file. Refused
is whatever would read another file (external links and storage, virtual datasets), run a filter, or ask for more
memory than the file has bytes.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from probekit.errors import CacheError, SpecError
from probekit.readspec import check_spec
from probekit.spec import Json
from probekit.store import layout as names
from probekit.store.fingerprint import fingerprint
from probekit.store.heaps import check_heaps
from probekit.store.pread import Identity, Span, identity_of, read_span

_MAX_DEPTH = 5
_NUMBERS = "iufb"
_REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])
"""What a text is in its dataset."""

_DAMAGE = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    MemoryError,
    SpecError,  # a spec with NaN or 1e999 in it has no fingerprint
)


@dataclass(frozen=True)
class Block:
    """A dataset as a place in the file: ``n_bytes`` at ``offset``. ``dtype`` is object for text."""

    name: str
    offset: int
    n_bytes: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    attrs: Json

    @property
    def is_text(self) -> bool:
        """Whether the values are strings (the bytes at ``offset`` are then only references to them)."""
        return self.dtype.kind == "O"


@dataclass(frozen=True)
class Structure:
    """A checked file: its blocks by name and its attributes. ``provenance_digest``: None in older files."""

    path: Path
    file_bytes: int
    spec: Json
    provenance: Json
    provenance_digest: str | None
    fingerprint: str
    columns: tuple[str, ...]
    poolings: tuple[str, ...]
    layers: tuple[int, ...]
    blocks: dict[str, Block]

    @property
    def n_examples(self) -> int:
        """Rows of the cache."""
        return self.blocks[names.N_TOKENS].shape[0]

    @property
    def d_model(self) -> int:
        """Length of a state, pooled or of a token."""
        first = self.layers[0]
        name = names.pooled_name(self.poolings[0], first) if self.poolings else names.token_states_name(first)
        return self.blocks[name].shape[1]

    @property
    def final_norm(self) -> frozenset[int]:
        """The layers to which the model's final norm was applied, as their datasets say."""
        normed = [name for name, block in self.blocks.items() if block.attrs.get("final_norm") is True]
        return frozenset(int(name.rsplit("/", 1)[1]) for name in normed)

    @property
    def data_names(self) -> list[str]:
        """The datasets that have a checksum: everything but progress and the checksums themselves."""
        return [name for name in sorted(self.blocks) if not name.startswith(("/progress/", "/checksums/"))]

    @property
    def example_names(self) -> list[str]:
        """Those of them that are known at creation: all but the states."""
        return [name for name in self.data_names if not names.is_states(name)]

    def span(self, name: str, identity: Identity | None = None) -> Span:
        """Where in the file the bytes of a dataset are."""
        block = self.blocks[name]
        return Span(self.path, name, block.offset, block.n_bytes, identity)

    def read(self, name: str) -> NDArray[Any]:
        """A numeric dataset, read into memory."""
        return typed(read_span(self.span(name)), self.blocks[name])

    def done(self) -> NDArray[np.uint8]:
        """Per window: 0 to do, 1 written, 2 written with a batch that was split for memory."""
        return self.read(names.DONE)

    def sealed(self) -> bool:
        """Whether all windows and checksums are written."""
        return bool(self.read(names.SEALED)[0] == 1)


def typed(raw: NDArray[np.uint8], block: Block) -> NDArray[Any]:
    """The values that the bytes of a numeric dataset stand for."""
    # Any byte but 0 and 1 would make a broken NumPy bool.
    return (raw != 0 if block.dtype.kind == "b" else raw.view(block.dtype)).reshape(block.shape)


@contextmanager
def damage_errors(path: Path) -> Iterator[None]:
    """Turn what h5py raises on a damaged file into a CacheError."""
    try:
        yield
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:160]
        raise CacheError(str(path), "the file is damaged or not a probekit cache", reason) from error


def open_checked(path: Path) -> tuple[h5py.File, Structure]:
    """Open ``path`` read-only and check all of its structure. The caller closes the file.

    Raises CacheError if the file is missing, foreign, damaged, hostile or of another format version.
    """
    check_file(path)
    with damage_errors(path):
        if not h5py.is_hdf5(path):
            raise CacheError(str(path), "is not a probekit cache (not an HDF5 file)")
        file = _open_file(path)
        try:
            return file, _structure(path, file)
        except BaseException:
            file.close()
            raise


def check_file(path: Path) -> Identity:
    """Which file ``path`` is. Raises CacheError unless it can be read; a pipe is not opened, which would wait."""
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            os.close(os.open(path, os.O_RDONLY))
            return identity_of(status)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CacheError(str(path), "no such cache file") from error
    except (OSError, ValueError) as error:
        raise CacheError(str(path), "can't be read", getattr(error, "strerror", "") or str(error)) from error
    raise CacheError(str(path), "must be a file", "a folder" if stat.S_ISDIR(status.st_mode) else "a device or pipe")


def _open_file(path: Path) -> h5py.File:
    """Opened as plain ``h5py.File(path)`` does, for HDF5 lets one process open a file only one way at a time."""
    try:
        return h5py.File(path, "r")
    except OSError:
        # Some network file systems know no locks; nobody writes to a cache through HDF5, so none are needed.
        return h5py.File(path, "r", locking=False)


def inspect_file(path: Path) -> Structure:
    """The checked structure of ``path``, which is closed again. Raises as ``open_checked``."""
    file, structure = open_checked(path)
    file.close()
    return structure


def _structure(path: Path, file: h5py.File) -> Structure:
    if not {"format", "spec", "provenance", "fingerprint"} <= set(file.attrs):
        raise CacheError(str(path), "is not a probekit cache")
    size = path.stat().st_size
    datasets = _walk(file, path, size)
    # Only now may HDF5 follow a reference to a text, be it of an attribute or of a dataset.
    heaps = check_heaps(path, [(block.offset, block.offset + block.n_bytes) for _, block in datasets.values()])
    root = _attributes(file, path, "/")
    if root["format"] != names.FORMAT:
        raise CacheError(str(path), "is not a probekit cache")
    version = root.get("format_version")
    if version != names.FORMAT_VERSION:
        made_by = "a newer" if isinstance(version, int) and version > names.FORMAT_VERSION else "another"
        raise CacheError(
            str(path), f"was made by {made_by} probekit; this one reads format {names.FORMAT_VERSION}", f"{version}"
        )
    spec, provenance = json.loads(root["spec"]), json.loads(root["provenance"])
    if not (isinstance(spec, dict) and isinstance(provenance, dict)) or fingerprint(spec) != root["fingerprint"]:
        raise CacheError(str(path), "is damaged: the spec does not match its fingerprint")
    check_spec(spec, f"{path}, spec", error=CacheError)
    blocks: dict[str, Block] = {}
    for name, (dataset, block) in datasets.items():
        if block.is_text and block.n_bytes:
            _check_text(block, path, size, heaps)
        blocks[name] = replace(block, attrs=_attributes(dataset, path, name))
    structure = Structure(
        path=path,
        file_bytes=size,
        spec=spec,
        provenance=provenance,
        provenance_digest=root.get("provenance_digest"),
        fingerprint=root["fingerprint"],
        columns=_names(_attributes(file["/examples"], path, "/examples")["columns"]),
        poolings=_names(_attributes(file["/pooled"], path, "/pooled")["poolings"]),
        layers=tuple(sorted({int(name.rsplit("/", 1)[1]) for name in blocks if names.is_states(name)})),
        blocks=blocks,
    )
    _check_shapes(structure)
    return structure


def _names(text: str) -> tuple[str, ...]:
    found = json.loads(text)
    if not (isinstance(found, list) and all(isinstance(name, str) for name in found) and len(set(found)) == len(found)):
        raise ValueError("a list of names is none")
    return tuple(found)


def _walk(file: h5py.File, path: Path, size: int) -> dict[str, tuple[h5py.Dataset, Block]]:
    """All datasets by their absolute names; the blocks have no attributes yet."""
    datasets: dict[str, tuple[h5py.Dataset, Block]] = {}
    seen = {h5py.h5o.get_info(file.id).addr}
    todo = [("", file.id)]
    while todo:
        prefix, group = todo.pop()
        for raw in list(group):
            name = f"{prefix}/{raw.decode('utf-8')}"
            if group.links.get_info(raw).type != h5py.h5l.TYPE_HARD:
                raise _refusal(path, name, "a link to elsewhere")
            info = h5py.h5o.get_info(group, raw)
            if info.addr in seen:
                raise _refusal(path, name, "a second name of another object")
            seen.add(info.addr)
            if info.type == h5py.h5o.TYPE_GROUP and name.count("/") < _MAX_DEPTH:
                todo.append((name, h5py.h5o.open(group, raw)))
            elif info.type == h5py.h5o.TYPE_DATASET:
                dataset = h5py.Dataset(h5py.h5o.open(group, raw))
                datasets[name] = dataset, _block(dataset, path, name, size)
            else:
                raise _refusal(path, name, "neither a group nor a dataset")
    return datasets


def _block(dataset: h5py.Dataset, path: Path, name: str, size: int) -> Block:
    creation = dataset.id.get_create_plist()
    if creation.get_external_count():
        raise _refusal(path, name, "stored in another file")
    if creation.get_layout() != h5py.h5d.CONTIGUOUS or creation.get_nfilters():
        raise _refusal(path, name, "not one contiguous block")
    dtype = dataset.dtype
    string = h5py.check_string_dtype(dtype)
    is_text = string is not None and string.length is None and string.encoding == "utf-8"
    if not is_text and dtype.kind not in _NUMBERS:
        raise _refusal(path, name, f"of type {dtype}, neither number nor text")
    shape = tuple(int(length) for length in dataset.shape or ())
    # (HDF5 gives the size of a text in memory, a pointer; in the file it is a reference.)
    n_bytes = _REFERENCE.itemsize if is_text else dataset.id.get_type().get_size()
    for length in shape:
        n_bytes *= length
    offset = dataset.id.get_offset()
    if n_bytes and (offset is None or offset + n_bytes > size):
        raise _refusal(path, name, f"of {n_bytes} bytes, more than the file holds (is it cut off?)")
    return Block(name, offset or 0, n_bytes, shape, dtype, {})


def _check_text(block: Block, path: Path, size: int, heaps: NDArray[np.int64]) -> None:
    """Look at the references themselves: a million that point to one large string would fill the memory."""
    references = read_span(Span(path, block.name, block.offset, block.n_bytes)).view(_REFERENCE)
    # (2**64 - 1 is HDF5's "nowhere"; an empty string has address 0 and no length.)
    addresses = references["address"][references["length"] > 0]
    if int(references["length"].sum(dtype=np.uint64)) > size or (addresses >= size).any():
        raise _refusal(path, block.name, "text longer than the file")
    if not np.isin(addresses.astype(np.int64), heaps).all():
        raise _refusal(path, block.name, "text that is in no text heap")


def _attributes(item: h5py.Group | h5py.Dataset, path: Path, name: str) -> Json:
    """All attributes, once each is known to be a single number, boolean or string."""
    values: Json = {}
    for key in item.attrs:
        attribute = item.attrs.get_id(key)
        string = h5py.check_string_dtype(attribute.dtype)
        if attribute.shape != () or not (string is not None or attribute.dtype.kind in _NUMBERS):
            raise _refusal(path, f"{name}, attribute {key}", "neither one number nor text")
        value = item.attrs[key]
        values[key] = value.item() if isinstance(value, np.generic) else value
    return values


def _check_shapes(structure: Structure) -> None:
    """All that later code relies on: which datasets there are, of what kind, and how their lengths go together."""
    path, blocks = str(structure.path), structure.blocks
    n, n_windows = blocks[names.N_TOKENS].shape[0], blocks[names.DONE].shape[0]
    needed: dict[str, tuple[str, tuple[int, ...]]] = {
        names.EXAMPLE_IDS: ("O", (n,)),
        names.N_TOKENS: ("i", (n,)),
        names.TRUNCATED: ("b", (n,)),
        names.SEALED: ("u", (1,)),
        names.DONE: ("u", (n_windows,)),
        names.WINDOWS: ("i", (n_windows, 2)),
    }
    optional: dict[str, tuple[str, tuple[int, ...]]] = {
        names.TEXTS: ("O", (n,)),
        names.CREATED: ("u", (32,)),
        names.WHOLE: ("u", (32,)),
        names.WINDOW_CHECKSUMS: ("u", (n_windows, 32)),
    }
    d = structure.d_model
    columns = {names.column_name(column): (n,) for column in structure.columns}
    states = {names.pooled_name(pooling, layer): (n, d) for pooling in structure.poolings for layer in structure.layers}
    if blocks.keys() & {names.TOKEN_OFFSETS, names.TOKEN_IDS, names.TOKEN_SPECIAL, names.TOKEN_WORD}:
        total = blocks[names.TOKEN_IDS].shape[0]
        needed |= {names.TOKEN_OFFSETS: ("i", (n + 1,)), names.TOKEN_IDS: ("i", (total,))}
        needed |= {names.TOKEN_SPECIAL: ("b", (total,)), names.TOKEN_WORD: ("i", (total,))}
        states |= {names.token_states_name(layer): (total, d) for layer in structure.layers}
    own = needed | {name: form for name, form in optional.items() if name in blocks}
    for name, shape in ({name: shape for name, (_, shape) in own.items()} | columns | states).items():
        if blocks[name].shape != shape:
            raise CacheError(path, f"is damaged: {name} must have shape {shape}", f"{blocks[name].shape}")
    odd = [name for name, (kind, _) in own.items() if blocks[name].dtype.kind != kind]
    odd += [
        name for name in states if blocks[name].dtype != names.STORAGE_DTYPES.get(blocks[name].attrs.get("dtype", ""))
    ]
    if odd:
        raise CacheError(path, f"is damaged: {odd[0]} has no valid dtype", str(blocks[odd[0]].dtype))
    for name in structure.data_names:
        checksum = blocks[names.checksum_name(name)]
        if (checksum.shape, checksum.dtype) != ((32,), np.dtype("u1")):
            raise CacheError(path, f"is damaged: no checksum for {name}")


def _refusal(path: Path, name: str, what: str) -> CacheError:
    return CacheError(f"{path}, {name}", "a probekit cache has only plain arrays and texts inside the file", what)
