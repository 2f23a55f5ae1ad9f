"""A finished cache as read-only arrays that scikit-learn takes as they are."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import h5py
import numpy as np
from numpy.typing import NDArray

from probekit.errors import CacheError, SpecError
from probekit.layers import layer_range
from probekit.spec import Json
from probekit.store import layout as names
from probekit.store.digest import sealed_digest
from probekit.store.existing import PARTIAL_SUFFIX, partial_path
from probekit.store.gone import Gone
from probekit.store.hashing import hash_datasets, stored_digest
from probekit.store.pread import FileRows, Identity, identity_of, read_span, replaced
from probekit.store.structure import Block, Structure, check_file, inspect_file, open_checked, typed
from probekit.store.token_states import TokenStates, decoded, frozen
from probekit.store.verify import changed, check_sealed


@dataclass(frozen=True)
class StoredSpec:
    """What a cache file, finished or not, was made from."""

    path: Path
    spec: Json
    provenance: Json
    fingerprint: str
    sealed: bool
    n_examples: int
    n_layers: int
    n_windows: int
    windows_done: int


def stored_spec(path: str | os.PathLike[str]) -> StoredSpec | None:
    """What the file at exactly ``path`` (finished or ``.partial``) was made from; None if there is no such file.

    Raises CacheError if the file is not a probekit cache or is damaged.
    """
    if not os.path.exists(path):
        return None
    structure = inspect_file(Path(path))
    done = structure.done()
    return StoredSpec(
        path=Path(path),
        spec=structure.spec,
        provenance=structure.provenance,
        fingerprint=structure.fingerprint,
        sealed=structure.sealed(),
        n_examples=structure.n_examples,
        n_layers=len(structure.layers),
        n_windows=len(done),
        windows_done=int(np.count_nonzero(done)),
    )


def open_cache(path: str | os.PathLike[str], *, verify: bool = False) -> Cache:
    """Open a finished cache for reading.

    ``verify``: compare with the checksums what is read: names, attributes, ids, texts and columns now, the states of a
    layer when they are first asked for, and give a copy of the very bytes that were checked. Without it a cache opens
    at once and layers are memory maps.

    Raises CacheError if the file is missing, unfinished, foreign, damaged, hostile or of another format version.

    >>> with open_cache("cache.h5") as cache:                                      # doctest: +SKIP
    ...     LogisticRegression().fit(cache.layer(8, pooling="mean"), cache.column("label"))
    """
    found = Path(path)
    if not os.path.exists(found) and os.path.exists(partial_path(found)):
        found = partial_path(found)
    identity = check_file(found)
    file, structure = open_checked(found)
    try:
        if not structure.sealed() or found.name.endswith(PARTIAL_SUFFIX):
            done = structure.done()
            raise CacheError(
                str(found),
                "this cache is unfinished; run the command that makes it again, and it goes on from there",
                f"{np.count_nonzero(done)} of {len(done)} windows written",
            )
        if identity != check_file(found):
            raise replaced(found)
        if verify:
            check_sealed(file, structure)
        # Arrays are read later, maybe from another working folder.
        return Cache(file, replace(structure, path=Path(os.path.abspath(found))), identity, verify=verify)
    except BaseException:
        file.close()
        raise


def _open_again(path: Path, seal: bytes, verify: bool) -> Cache | Gone:
    """A cache that another process had open: the same bytes, or what raises an error."""
    try:
        cache = open_cache(path)
    except CacheError as error:
        return Gone(error)
    if cache.seal != seal:
        cache.close()
        return Gone(replaced(path))
    return Cache(cache._file, cache._structure, cache._identity, verify=verify)


class Cache:
    """A finished cache, made by ``open_cache``. A context manager; it can be pickled (and is then opened anew).

    Arrays stay valid after ``close()``. A pickled cache opens only on a file with the same names, attributes and
    checksums.
    """

    def __init__(self, file: h5py.File, structure: Structure, identity: Identity, *, verify: bool) -> None:
        self._file = file
        self._structure = structure
        self._identity = identity
        self._verify = verify
        self._checked: set[str] = set()

    def __reduce__(self) -> tuple[Callable[[Path, bytes, bool], Cache | Gone], tuple[Path, bytes, bool]]:
        return _open_again, (self.path, self.seal, self._verify)

    def __enter__(self) -> Cache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"Cache({str(self.path)!r}, {self.n_examples} examples, {len(self.layers)} layers, d_model {self.d_model})"
        )

    def __len__(self) -> int:
        return self.n_examples

    def close(self) -> None:
        """Close the file. Safe to repeat."""
        self._file.close()

    @property
    def path(self) -> Path:
        """The file."""
        return self._structure.path

    @property
    def spec(self) -> Json:
        """Everything that determined the values."""
        return self._structure.spec

    @property
    def provenance(self) -> Json:
        """What else is known about the making (versions, times, the machine)."""
        return self._structure.provenance

    @property
    def fingerprint(self) -> str:
        """SHA-256 of ``spec``."""
        return self._structure.fingerprint

    @cached_property
    def seal(self) -> bytes:
        """SHA-256 of all that decides a value: spec, names, attributes and checksums."""
        self._check_open()
        return sealed_digest(self._structure)

    @property
    def model(self) -> str:
        """``spec["model"]``, or an empty string."""
        return str(self.spec.get("model") or "")

    @property
    def revision(self) -> str:
        """``spec["revision"]``, or an empty string."""
        return str(self.spec.get("revision") or "")

    @property
    def layers(self) -> tuple[int, ...]:
        """The stored layers, ascending; 0 is the embeddings."""
        return self._structure.layers

    @property
    def n_layers(self) -> int:
        """How many layers are stored."""
        return len(self.layers)

    @cached_property
    def final_norm(self) -> frozenset[int]:
        """The layers to which the model's final norm was applied."""
        return final_norm_layers(self._structure)

    @property
    def poolings(self) -> tuple[str, ...]:
        """The stored poolings, in the order they were asked for."""
        return self._structure.poolings

    @property
    def n_examples(self) -> int:
        """Rows."""
        return self._structure.n_examples

    @property
    def d_model(self) -> int:
        """Length of a state."""
        return self._structure.states.shape[1]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the input's columns, in the input's order."""
        return self._structure.columns

    @cached_property
    def ids(self) -> NDArray[np.object_]:
        """(n_examples,) unique strings."""
        return self._strings(names.EXAMPLE_IDS)

    @cached_property
    def texts(self) -> list[str]:
        """The n_examples texts. Raises CacheError if they were not stored."""
        if names.TEXTS not in self._structure.blocks:
            raise CacheError(str(self.path), "the texts were not stored (--no-store-text)")
        return list(self._strings(names.TEXTS))

    @cached_property
    def words(self) -> list[list[str]] | None:
        """The words of each example, if the data came as words; None for running text."""
        column = self.spec.get("words")
        if column is None:
            return None
        if column not in self.columns:
            raise CacheError(
                str(self.path), "is damaged: the spec names a column of words that is not there", f"{column!r:.60}"
            )
        return [self._words(str(cell), row) for row, cell in enumerate(self.column(column))]

    @cached_property
    def n_tokens(self) -> NDArray[np.int32]:
        """(n_examples,) tokens read, after truncation."""
        return frozen(self._read(names.N_TOKENS))

    @cached_property
    def truncated(self) -> NDArray[np.bool_]:
        """(n_examples,) whether tokens were cut off."""
        return frozen(self._read(names.TRUNCATED))

    def column(self, name: str) -> NDArray[Any]:
        """A column of the input, (n_examples,); also "id", "n_tokens" and "truncated" unless the input has its own.

        Raises SpecError with the near name if there is none.
        """
        if name in self.columns:
            stored = names.column_name(name)
        elif name in names.OWN_COLUMNS:
            stored = names.OWN_COLUMNS[name]
        else:
            known = tuple(dict.fromkeys((*self.columns, *names.OWN_COLUMNS)))
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SpecError(f"column {name!r}", f"this cache has {', '.join(known)}{hint}")
        return self._strings(stored) if self._structure.blocks[stored].is_text else self._read(stored)

    def layer(self, k: int, pooling: str | None = None, *, mapped: bool = True) -> NDArray[Any]:
        """The pooled states of layer ``k``, (n_examples, d_model), read-only.

        float32 and float16 come as a memory map of the file, not copied; bfloat16 as a float32 copy. With
        ``mapped=False``, or in a cache that was opened with ``verify``, all are copies: then a file that is cut short
        while it is read is an error, where touching a map kills the process. A negative ``k`` counts from the end of
        ``layers``. ``pooling`` can be left out where only one is stored.

        Raises SpecError for a layer or pooling that is not stored, CacheError for a file that changed.
        """
        if not self.poolings:
            raise SpecError("pooling", "this cache has token states only; see tokens()")
        if pooling is None and len(self.poolings) == 1:
            pooling = self.poolings[0]
        if pooling not in self.poolings:
            raise SpecError("pooling", f"this cache has {', '.join(self.poolings)}", str(pooling or "no choice"))
        name = names.pooled_name(pooling, self._layer(k))
        return decoded(self._map(name) if mapped and not self._verify else frozen(self._read(name)))

    def tokens(self, k: int) -> TokenStates:
        """The token states of layer ``k``, mapped. Raises SpecError if the cache has none, or not that layer."""
        self._check_tokens()
        name = names.token_states_name(self._layer(k))
        offsets, total = self._read(names.TOKEN_OFFSETS), self._structure.blocks[names.TOKEN_IDS].shape[0]
        if offsets[0] != 0 or offsets[-1] != total or (np.diff(offsets) < 0).any():
            raise CacheError(str(self.path), f"is damaged: {names.TOKEN_OFFSETS} does not go from 0 to {total}")
        self._check_bytes(name)
        return TokenStates(
            stored=self._map(name),
            offsets=frozen(offsets),
            token_ids=frozen(self._read(names.TOKEN_IDS)),
            token_special=frozen(self._read(names.TOKEN_SPECIAL)),
            token_word=frozen(self._read(names.TOKEN_WORD)),
        )

    def token_rows(self, k: int) -> FileRows:
        """The token states of layer ``k``, (total_tokens, d_model), of which rows are read as they are asked for.

        Raises as ``tokens``; CacheError for a file that changed, when rows are read.
        """
        self._check_tokens()
        name = names.token_states_name(self._layer(k))
        self._check_bytes(name)
        block = self._structure.blocks[name]
        return FileRows(self._structure.span(name, self._identity), block.shape, block.dtype)

    def _check_tokens(self) -> None:
        if names.TOKEN_OFFSETS not in self._structure.blocks:
            raise SpecError("tokens", "this cache has pooled states only; extract with --tokens")

    def _layer(self, k: int) -> int:
        if k in self.layers:
            return k
        if -len(self.layers) <= k < 0:
            return self.layers[k]
        raise SpecError(f"layer {k}", f"this cache has layers {layer_range(self.layers)}")

    def _words(self, cell: str, row: int) -> list[str]:
        try:
            words = json.loads(cell)
        except (ValueError, RecursionError):
            words = None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return words
        column = f"{self.path}, row {row + 1}, column {self.spec['words']!r}"
        raise CacheError(column, "is damaged: must be a list of words as JSON", repr(cell[:60]))

    def _strings(self, name: str) -> NDArray[np.object_]:
        self._check_open()
        try:
            self._check_bytes(name)
            return cast("NDArray[np.object_]", self._file[name].asstr()[()])
        except (OSError, RuntimeError, ValueError) as error:
            raise CacheError(f"{self.path}, {name}", "is damaged", str(error)[:160]) from error

    def _read(self, name: str) -> NDArray[Any]:
        """A numeric dataset in memory; with ``verify`` the bytes that are returned are those that were checked."""
        self._check_open()
        raw = read_span(self._structure.span(name, self._identity))
        if self._verify and name not in self._checked:
            self._compare(name, hashlib.sha256(raw.data).digest())
        return typed(raw, self._structure.blocks[name])

    def _check_bytes(self, name: str) -> None:
        """With ``verify``, once: are the bytes of a dataset those that were sealed?"""
        if self._verify and name not in self._checked:
            digests = hash_datasets(self._file, self._structure, [name], identity=self._identity)
            self._compare(name, digests[name])

    def _compare(self, name: str, digest: bytes) -> None:
        if stored_digest(self._structure, name) != digest:
            raise changed(self.path, [name])
        self._checked.add(name)

    def _map(self, name: str) -> NDArray[Any]:
        self._check_open()
        return _mapped(self.path, self._structure.blocks[name])

    def _check_open(self) -> None:
        """Offsets hold for the very file that was opened, not for one that took its name since."""
        if not self._file:
            raise CacheError(str(self.path), "this cache is closed")
        if not os.path.exists(self.path) or identity_of(self.path.stat()) != self._identity:
            raise replaced(self.path)


def final_norm_layers(structure: Structure) -> frozenset[int]:
    """The layers whose dataset says that the final norm was applied."""
    return frozenset(
        int(name.rsplit("/", 1)[1]) for name, block in structure.blocks.items() if block.attrs.get("final_norm") is True
    )


def _mapped(path: Path, block: Block) -> NDArray[Any]:
    if not block.n_bytes:
        return frozen(np.empty(block.shape, dtype=block.dtype))
    mapped = np.memmap(path, dtype=block.dtype, mode="r", offset=block.offset, shape=block.shape)
    # Only datasets under 512 bytes are not aligned in the file; compiled code may refuse them, so those are copied.
    return mapped if mapped.flags.aligned else frozen(np.array(mapped))
