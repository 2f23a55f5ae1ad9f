"""A random order of names that depends on the names and the seed, not on where in the file they stand."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


def shuffled(names: Iterable[object], *, seed: int) -> NDArray[np.int64]:
    """Positions of ``names`` in a random order, (n,) int64.

    Sorted by a keyed hash of the name, so permuting the rows of an input permutes nothing in its splits.

    >>> first = shuffled(["a", "b", "c"], seed=0)
    >>> again = shuffled(["c", "b", "a"], seed=0)
    >>> ["abc"[i] for i in first] == ["cba"[i] for i in again]
    True
    """
    key = f"probekit split {seed}".encode()
    hashes = [blake2b(str(name).encode("utf-8", "surrogatepass"), key=key, digest_size=16).digest() for name in names]
    return np.array(sorted(range(len(hashes)), key=lambda i: (hashes[i], i)), dtype=np.int64)
