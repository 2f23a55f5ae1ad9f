"""Text of the data's in a form that steers nothing: control characters, and ones that reorder a line, as escapes."""

from __future__ import annotations

_NAMED = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
_CONTROL = [*range(0x20), *range(0x7F, 0xA0)]
_REORDER = [*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x2028, 0x2029]  # and line ends that some know
_HALVES = range(0xD800, 0xE000)  # lone surrogates: bytes of a file name that are no UTF-8
_ESCAPES = {code: _NAMED.get(chr(code), f"\\u{code:04x}") for code in (*_CONTROL, *_REORDER, *_HALVES)}
_ESCAPES_IN_LINES = {code: escape for code, escape in _ESCAPES.items() if code != ord("\n")}


def plain(text: str) -> str:
    """``text`` in one line, control characters as escapes (in the form that JSON has, too).

    >>> print(plain("red \\x1b[31m and a new" + chr(10) + "line"))
    red \\u001b[31m and a new\\nline
    """
    return text.translate(_ESCAPES)


def plain_lines(text: str) -> str:
    """The same with its line ends kept."""
    return text.translate(_ESCAPES_IN_LINES)
