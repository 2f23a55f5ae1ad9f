"""Bytes of a text file become text, or an error says where they don't."""

from __future__ import annotations

import codecs

from probekit.errors import InputError


def decode(data: bytes, name: str) -> str:
    """UTF-8, with or without a byte order mark, line ends as they are.

    Raises ``InputError`` for bytes in another encoding and for NUL; names the line and the byte.
    """
    data = data.removeprefix(codecs.BOM_UTF8)
    if (nul := data.find(b"\0")) >= 0:
        raise InputError(*_spot(data, nul, name), "a NUL byte (is it UTF-16, or no text file?)")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InputError(*_spot(data, error.start, name), f"byte 0x{data[error.start]:02x}") from error


def _spot(data: bytes, position: int, name: str) -> tuple[str, str]:
    line = data.count(b"\n", 0, position) + 1
    byte = position - data.rfind(b"\n", 0, position)
    return f"{name}, line {line}, byte {byte}", "the file must be UTF-8 text"


def split_lines(text: str) -> list[str]:
    """Lines without their ends, which are LF or CRLF; blank lines at the end of the file don't count.

    Not ``str.splitlines``, which also splits at characters that are legal within a text, such as U+2028.
    """
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines
