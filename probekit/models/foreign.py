"""Calls into libraries that read a stranger's files, and may raise anything while they do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from probekit.errors import ModelError, ProbekitError

LONGEST = 300
"""Characters of a library's message that are kept: some list every model they know."""


@contextmanager
def foreign(source: str, failed: str) -> Iterator[None]:
    """Turn whatever is raised inside into a ModelError about ``source``: ``failed``, and the first line of why.

    Only for calls whose errors can all be blamed on the files of a model: transformers, tokenizers, safetensors, torch
    and gguf each raise what they like, ``Exception`` itself and panics of Rust (which are no ``Exception``) included.
    """
    try:
        yield
    except BaseException as error:
        blamed = isinstance(error, Exception) or type(error).__name__ == "PanicException"
        if isinstance(error, ProbekitError) or not blamed:
            raise
        raise ModelError(source, f"{failed}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message, with control characters escaped; with the next one if it ends in a colon.

    The name of its type where the message says nothing by itself.
    """
    lines = [line.strip() for line in str(error).splitlines() if any(map(str.isalnum, line))]
    line = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    said = "".join(character if character.isprintable() else repr(character)[1:-1] for character in line)
    if isinstance(error, KeyError) or not said:
        said = f"{type(error).__name__} {said}".strip()
    return said if len(said) <= LONGEST else said[:LONGEST] + "…"
