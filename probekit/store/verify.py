"""Does a finished cache still hold the bytes that were sealed?"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from probekit.errors import CacheError
from probekit.store.hashing import hash_blocks
from probekit.store.layout import checksum_name
from probekit.store.structure import damage_errors, open_checked


@dataclass(frozen=True)
class DatasetCheck:
    """One dataset: ``ok`` if its bytes have the SHA-256 that was written at sealing."""

    name: str
    ok: bool
    n_bytes: int


@dataclass(frozen=True)
class VerifyReport:
    """All datasets of a cache, by name."""

    path: Path
    datasets: tuple[DatasetCheck, ...]

    @property
    def ok(self) -> bool:
        """Whether every dataset is as it was sealed."""
        return not self.mismatches

    @property
    def mismatches(self) -> tuple[str, ...]:
        """Names of the datasets that changed."""
        return tuple(check.name for check in self.datasets if not check.ok)


def verify(path: str | os.PathLike[str]) -> VerifyReport:
    """Compare every dataset with its checksum; damaged metadata is an error, damaged data a mismatch.

    Raises CacheError if the file is missing, unfinished, foreign, hostile or cut short.
    """
    found = Path(path)
    file, structure = open_checked(found)
    with file, damage_errors(found):
        if not structure.sealed():
            raise CacheError(str(found), "only a finished cache has checksums; this one is unfinished")
        digests = hash_blocks(file, structure)
        checks = tuple(
            DatasetCheck(name, structure.read(checksum_name(name)).tobytes() == digest, structure.blocks[name].n_bytes)
            for name, digest in sorted(digests.items())
        )
    return VerifyReport(found, checks)
