"""Does a finished cache still hold the bytes that were sealed?"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import h5py

from probekit.errors import CacheError
from probekit.store.digest import ATTRIBUTES, is_kept, spec_mismatches
from probekit.store.hashing import data_names, example_names, hash_datasets, stored_digest
from probekit.store.structure import Structure, damage_errors, open_checked


@dataclass(frozen=True)
class DatasetCheck:
    """One dataset: ``ok`` if its bytes have the SHA-256 that was written at sealing."""

    name: str
    ok: bool
    n_bytes: int


@dataclass(frozen=True)
class VerifyReport:
    """All datasets of a cache, by name, and what else is ``damaged``: attributes and names, or a digest in the spec.

    ``unchecked``: what a cache of an earlier version has no checksum of.
    """

    path: Path
    datasets: tuple[DatasetCheck, ...]
    damaged: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything that can be checked is as it was sealed."""
        return not self.mismatches

    @property
    def mismatches(self) -> tuple[str, ...]:
        """Names of what changed."""
        return (*(check.name for check in self.datasets if not check.ok), *self.damaged)


def verify(path: str | os.PathLike[str]) -> VerifyReport:
    """Compare every dataset with its checksum; metadata that can't be read is an error, all else a mismatch.

    Raises CacheError if the file is missing, unfinished, foreign, hostile or cut short.
    """
    found = Path(path)
    file, structure = open_checked(found)
    with file, damage_errors(found):
        if not structure.sealed():
            raise CacheError(str(found), "only a finished cache has checksums; this one is unfinished")
        return _report(file, structure, data_names(structure))


def check_sealed(file: h5py.File, structure: Structure) -> None:
    """Raise CacheError if anything but states is not as it was sealed."""
    with damage_errors(structure.path):
        report = _report(file, structure, example_names(structure))
    if not report.ok:
        raise changed(structure.path, report.mismatches)


def changed(path: Path, what: Iterable[str]) -> CacheError:
    """The error for what is not as it was sealed."""
    return CacheError(str(path), f"is damaged: not as it was sealed: {', '.join(what)}")


def _report(file: h5py.File, structure: Structure, which: list[str]) -> VerifyReport:
    digests = hash_datasets(file, structure, which)
    checks = tuple(
        DatasetCheck(name, stored_digest(structure, name) == digest, structure.blocks[name].n_bytes)
        for name, digest in sorted(digests.items())
    )
    damaged = [f"{name} (another digest in the spec)" for name in spec_mismatches(file, structure, digests)]
    whole = is_kept(structure)
    if whole is False:
        damaged.insert(0, ATTRIBUTES)
    return VerifyReport(structure.path, checks, tuple(damaged), () if whole is not None else (ATTRIBUTES,))
