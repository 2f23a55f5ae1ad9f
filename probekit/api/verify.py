"""Is a cache as it was sealed?"""

from __future__ import annotations

import os

from probekit.errors import CacheError
from probekit.store.verify import VerifyReport
from probekit.store.verify import verify as verify_file


def verify(cache: str | os.PathLike[str]) -> VerifyReport:
    """Check every dataset of a finished cache, and its names and attributes, against their checksums.

    Raises CacheError for one that was changed, naming what changed, and for a file that is no finished cache.
    """
    report = verify_file(cache)
    if not report.ok:
        changed = ", ".join(report.mismatches)
        raise CacheError(str(cache), f"everything must have the checksum it was sealed with; changed: {changed}")
    return report
