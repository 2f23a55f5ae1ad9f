"""A finished cache as read-only arrays that scikit-learn takes as they are."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, cast

import h5py
import numpy as np
from numpy.typing import NDArray

from probekit.errors import CacheError, SpecError
from probekit.layers import layer_range
from probekit.store import layout as names
from probekit.store.existing import PARTIAL_SUFFIX, found_or_partial
from probekit.store.hashing import hash_datasets, stored_digest
from probekit.store.pread import FileRows, Identity, identity_of, read_span, replaced
from probekit.store.structure import Structure, check_file, open_checked, typed
from probekit.store.token_states import TokenStates, decoded, frozen
from probekit.store.verify import changed, check_sealed, whole_digest


def open_cache(path: str | os.PathLike[str], *, verify: bool = False) -> Cache:
    """Open a finished cache for reading.

    ``verify``: compare with the checksums what is read: names, attributes, ids, texts and columns now, the states of a
    layer when they are first asked for, and give a copy of the very bytes that were checked. Without it a cache opens
    at once and layers are memory maps.

    Raises CacheError if the file is missing, unfinished, foreign, damaged, hostile or of another format version.

    >>> with open_cache("cache.h5") as cache:                                      # doctest: +SKIP
    ...     LogisticRegression().fit(cache.layer(8, pooling="mean"), cache.column("label"))
    """
    found = found_or_partial(path)
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


class Gone:
    """Stands for a cache that can't be opened again: the error comes when something is asked of it.

    (Raised while a task is unpickled, it would end the pool of processes, and nobody would see why.)
    """

    def __init__(self, error: CacheError) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def ask(*_arguments: Any, **_options: Any) -> Any:
            raise self._error

        return ask


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

    ``spec``: everything that determined the values, and ``fingerprint`` its SHA-256; ``provenance``: what else is known
    of the making. ``model``, ``revision``: of ``spec``, or empty. ``layers``: those stored, ascending; 0 is the
    embeddings. ``final_norm``: those to which the model's final norm was applied. ``poolings``: in the order they were
    asked for. ``columns``: the input's, in its order. Arrays stay valid after ``close()``. A pickled cache opens only
    on a file with the same names, attributes and checksums.
    """

    def __init__(self, file: h5py.File, structure: Structure, identity: Identity, *, verify: bool) -> None:
        self.path: Final = structure.path
        self.spec: Final = structure.spec
        self.provenance: Final = structure.provenance
        self.fingerprint: Final = structure.fingerprint
        self.model: Final = str(self.spec.get("model") or "")
        self.revision: Final = str(self.spec.get("revision") or "")
        self.layers: Final = structure.layers
        self.n_layers: Final = len(self.layers)
        self.final_norm: Final = structure.final_norm
        self.poolings: Final = structure.poolings
        self.n_examples: Final = structure.n_examples
        self.d_model: Final = structure.d_model
        self.columns: Final = structure.columns
        self._file = file
        self._structure = structure
        self._identity = identity
        self._verify = verify
        self._checked: set[str] = set()

    def __reduce__(self) -> tuple[Callable[[Path, bytes, bool], Cache | Gone], tuple[Path, bytes, bool]]:
        return _open_again, (self.path, self.seal, self._verify)

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_raised: object) -> None:
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

    @cached_property
    def seal(self) -> bytes:
        """SHA-256 of all that decides a value: spec, names, attributes and checksums."""
        self._check_open()
        return whole_digest(self._structure)

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
        name = self._token_states(k)
        offsets, total = self._read(names.TOKEN_OFFSETS), self._structure.blocks[names.TOKEN_IDS].shape[0]
        if offsets[0] != 0 or offsets[-1] != total or (np.diff(offsets) < 0).any():
            raise CacheError(str(self.path), f"is damaged: {names.TOKEN_OFFSETS} does not go from 0 to {total}")
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
        name = self._token_states(k)
        block = self._structure.blocks[name]
        return FileRows(self._structure.span(name, self._identity), block.shape, block.dtype)

    def _token_states(self, k: int) -> str:
        """The name of a layer's dataset of token states, checked as they have to be."""
        if names.TOKEN_OFFSETS not in self._structure.blocks:
            raise SpecError("tokens", "this cache has pooled states only; extract with --tokens")
        name = names.token_states_name(self._layer(k))
        self._check_bytes(name)
        return name

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
        block = self._structure.blocks[name]
        if not block.n_bytes:
            return frozen(np.empty(block.shape, dtype=block.dtype))
        mapped = np.memmap(self.path, dtype=block.dtype, mode="r", offset=block.offset, shape=block.shape)
        # Only datasets under 512 bytes are not aligned in the file; compiled code may refuse them, so those are copied.
        return mapped if mapped.flags.aligned else frozen(np.array(mapped))

    def _check_open(self) -> None:
        """Offsets hold for the very file that was opened, not for one that took its name since."""
        if not self._file:
            raise CacheError(str(self.path), "this cache is closed")
        if not os.path.exists(self.path) or identity_of(self.path.stat()) != self._identity:
            raise replaced(self.path)
