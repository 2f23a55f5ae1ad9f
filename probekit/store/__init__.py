"""The HDF5 cache of hidden states: allocated once, filled by windows, sealed, then read as plain arrays."""

from __future__ import annotations

from probekit.store.cache import Cache, open_cache
from probekit.store.encoding import stored_values
from probekit.store.existing import partial_path, windows_of
from probekit.store.fingerprint import columns_digest, fingerprint, text_digest
from probekit.store.summary import CacheSummary, describe, stored_spec
from probekit.store.token_states import SUBWORDS, TextTokens, TokenStates, WordStates, word_matrix
from probekit.store.verify import verify
from probekit.store.writer import open_writer

__all__ = [
    "SUBWORDS",
    "Cache",
    "CacheSummary",
    "TextTokens",
    "TokenStates",
    "WordStates",
    "columns_digest",
    "describe",
    "fingerprint",
    "open_cache",
    "open_writer",
    "partial_path",
    "stored_spec",
    "stored_values",
    "text_digest",
    "verify",
    "windows_of",
    "word_matrix",
]
