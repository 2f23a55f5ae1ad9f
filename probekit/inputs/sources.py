"""What the user named: a local file, or a dataset of the Hugging Face hub."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from probekit.inputs.files import READERS

# A revision may be a reference with slashes (refs/convert/parquet); names and configurations have none.
HUB_ID = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[^@:/]+))?(?:@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class HubId:
    """A dataset of the hub: ``org/name:config@revision``, ``given`` as a whole."""

    given: str
    name: str
    config: str | None
    revision: str | None


def parse_source(source: str | os.PathLike[str]) -> Path | HubId:
    """Tell files from datasets.

    A path object is a path, and so is text that exists as one, begins with ``.``, ``/`` or ``~``, has an
    ending of ``READERS``, looks like a file's name (a dot and no slash), or can't be the name
    of a dataset (two slashes, a blank).

    >>> parse_source("org/data:small@v1.0")
    HubId(given='org/data:small@v1.0', name='org/data', config='small', revision='v1.0')
    >>> parse_source("data/train.tsv")
    PosixPath('data/train.tsv')
    """
    path = Path(os.path.expanduser(source))  # Path.expanduser raises for an unknown user
    hub = HUB_ID.fullmatch(source) if isinstance(source, str) else None
    looks_local = bool(path.suffix) and "/" not in os.fspath(source)
    local = looks_local or path.suffix.lower() in READERS or os.fspath(source).startswith((".", "/", "~"))
    if hub is None or local or os.path.exists(path):
        return path
    return HubId(hub[0], **hub.groupdict())


def source_name(source: Path | HubId) -> str:
    """How results name it: nothing of the machine's folders."""
    return source.name if isinstance(source, Path) else source.given
