"""SHA-256 of datasets, read back from the file."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py

from probekit.errors import CacheError
from probekit.store.fingerprint import update_with_texts
from probekit.store.structure import Block, Structure

_READ_BYTES = 4 << 20
_MAX_THREADS = 4


def data_blocks(structure: Structure) -> list[Block]:
    """The blocks that have a checksum: everything but progress and the checksums themselves."""
    return [b for name, b in sorted(structure.blocks.items()) if not name.startswith(("/progress/", "/checksums/"))]


def hash_blocks(file: h5py.File, structure: Structure) -> dict[str, bytes]:
    """SHA-256 of every data block: of its bytes in the file, or for text of each UTF-8 string after its length."""
    blocks = data_blocks(structure)
    digests = {block.name: _hash_text(file, block) for block in blocks if block.is_text}
    numbers = [block for block in blocks if not block.is_text]
    with ThreadPoolExecutor(max(1, min(_MAX_THREADS, os.cpu_count() or 1))) as pool:
        found = pool.map(lambda block: _hash_bytes(structure.path, block), numbers)
        return digests | {block.name: digest for block, digest in zip(numbers, found, strict=True)}


def _hash_bytes(path: Path, block: Block) -> bytes:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_READ_BYTES))
    left = block.n_bytes
    # Read, not mapped: on a file that another process cuts short a map would kill this process.
    with path.open("rb", buffering=0) as raw:
        raw.seek(block.offset)
        while left:
            count = raw.readinto(buffer[: min(left, _READ_BYTES)])
            if not count:
                raise CacheError(f"{path}, {block.name}", "the file ends before the dataset does")
            digest.update(buffer[:count])
            left -= count
    return digest.digest()


def _hash_text(file: h5py.File, block: Block) -> bytes:
    digest = hashlib.sha256()
    # Bytes, not str: a damaged text may be no UTF-8 any more and must still give a checksum (another one).
    texts = (raw.decode("utf-8", "surrogateescape") for raw in file[block.name][()])
    update_with_texts(digest, texts)
    return digest.digest()
