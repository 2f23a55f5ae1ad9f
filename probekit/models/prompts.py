"""A template around each text, and where the text lies in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from probekit.errors import SpecError
from probekit.models.chat import rendered_chats
from probekit.readspec import ReadSpec
from probekit.spec import PLACE

BLANKS = "\t \n\t"
"""Around the sentinel; no template has these of its own."""

TRIMS: dict[str, Callable[[str], str]] = {"": str, "both": str.strip, "left": str.lstrip, "right": str.rstrip}
PROBES = ("A", "an end!\r\nof lines.\n", "\n\nNew lines\n", "  Blanks  ", "Word " * 400)
"""Texts that a template may treat in another way: capitals, signs, line ends, blanks, many words."""

SENTINEL = 'probekit\'s "text"  <goes>\n\n& here'
"""Stands for the text while the chat template is rendered once; what is around it is the template's own."""


@dataclass(frozen=True)
class Template:
    """What stands before and after each text, and whether the tokenizer still adds its special tokens.

    A chat template brings its own beginning of text, so the tokenizer must not add a second one. ``trim``: on which
    sides it cuts outer blanks off the text, a key of ``TRIMS``.
    """

    before: str = ""
    after: str = ""
    add_special_tokens: bool = True
    trim: str = ""

    def render(self, text: str) -> str:
        """The whole prompt."""
        return f"{self.before}{TRIMS[self.trim](text)}{self.after}"

    def span(self, text: str) -> tuple[int, int]:
        """First character of the text in the prompt, and the one after its last."""
        return len(self.before), len(self.before) + len(TRIMS[self.trim](text))

    def first_character(self, text: str) -> int:
        """Where in the prompt the first character of ``text`` stands, or would stand but for a blank cut off."""
        return len(self.before) - (len(text) - len(text.lstrip()) if self.trim in ("both", "left") else 0)


def make_template(
    prompt: str | None, *, chat: bool, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str] = ()
) -> Template:
    """The template of ``--prompt``, which has ``{text}`` in it once, and ``--chat-template``; both, or neither.

    With ``chat`` the prompt is the user's message, followed by the beginning of the assistant's answer. ``texts``: that
    will be read; of some it is seen whether the chat template does with them what it does with others.

    Raises SpecError if the tokenizer has no chat template, or one that does not keep the message as it is.
    """
    before, after = ("", "") if prompt is None else prompt.split(PLACE)
    if not chat:
        return Template(before, after)
    if tokenizer.chat_template is None:
        raise SpecError(
            "--chat-template", "needs a tokenizer with a chat template; this model's has none, so use --prompt"
        )
    tried = [*PROBES, *_telling(texts, tokenizer.all_special_tokens)]
    marked, *rendered = rendered_chats(
        tokenizer, [f"{before}{text}{after}" for text in (f"{BLANKS}{SENTINEL}{BLANKS}", *tried)]
    )
    if marked.count(SENTINEL) != 1:
        raise SpecError("--chat-template", "the chat template must hold the message exactly once")
    left, right = marked.split(SENTINEL)
    # What becomes of the blanks says whether the template cuts them off.
    cut = (not left.endswith(BLANKS), not right.startswith(BLANKS))
    trim = {(False, False): "", (True, True): "both", (True, False): "left", (False, True): "right"}[cut]
    template = Template(left.removesuffix(BLANKS), right.removeprefix(BLANKS), add_special_tokens=False, trim=trim)
    for text, found in zip(tried, rendered, strict=True):
        if template.render(text) != found:
            message = "the chat template must put the same around every text, and change the text by outer blanks alone"
            raise SpecError("--chat-template", message, f"another prompt for {text[:60]!r}")
    return template


def _telling(texts: Sequence[str], special: Sequence[str]) -> list[str]:
    """Texts in which a template that changes them is likely to show: long, short, with special tokens, and others."""
    by_length = sorted(texts, key=len)
    with_special = [text for text in texts if any(token in text for token in special)]
    some = [*by_length[:3], *by_length[-3:], *with_special[:5], *texts[:: max(1, len(texts) // 20)]]
    return list(dict.fromkeys(some))


def read_template(spec: ReadSpec, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str] = ()) -> Template:
    """The template that texts are read with: what a chat template rendered once, whatever it renders today.

    (It may hold the date. Older caches don't say what was rendered, so it is rendered anew.)
    """
    if spec.rendered is None:
        return make_template(spec.prompt, chat=spec.chat_template, tokenizer=tokenizer, texts=texts)
    left, right = spec.rendered
    return Template(left, right, add_special_tokens=False, trim=spec.rendered_trim or "")


def text_range(offsets: Iterable[tuple[int, int]], span: tuple[int, int]) -> tuple[int, int]:
    """First token that has a character of ``span``, and the one after the last; (k, k) if none has.

    ``offsets``: per token the (start, stop) characters, (0, 0) for special tokens. A token across the border (a blank
    and the first letters of the text, in byte-level vocabularies) belongs to the text. A character that took several
    tokens (an emoji in bytes) gives all of them.
    """
    start, stop = span
    inside = [i for i, (a, b) in enumerate(offsets) if a < stop and b > start]
    return (inside[0], inside[-1] + 1) if inside else (0, 0)


def window_text(
    n_tokens: int, within: tuple[int, int], max_length: int, *, stride: int
) -> tuple[NDArray[np.intp], tuple[int, ...]]:
    """Which tokens to read, piece after piece, each short enough, and where in that every piece but the first begins.

    Pieces share ``stride`` tokens of the text with the piece before. What stands around the text is in every piece.

    Raises SpecError if no room is left for more than ``stride`` tokens.
    """
    start, stop = within
    room = max_length - (n_tokens - (stop - start))
    if n_tokens <= max_length:
        return np.arange(n_tokens), ()
    if room < 1:
        raise _prompt_too_long(n_tokens - (stop - start), max_length)
    check_stride(stride, room)
    firsts = range(start, stop - stride, room - stride)
    around = np.arange(start), np.arange(stop, n_tokens)
    pieces = [np.concatenate([around[0], np.arange(a, min(a + room, stop)), around[1]]) for a in firsts]
    return np.concatenate(pieces), tuple(np.cumsum([len(piece) for piece in pieces])[:-1].tolist())


def check_stride(stride: int, room: int) -> None:
    """Raise SpecError if pieces of ``room`` tokens of the text can't share ``stride`` of them."""
    if not 0 <= stride < room:
        raise SpecError(f"--stride {stride}", f"0 to {room - 1}, fewer than the tokens of a text that fit in at once")


def _prompt_too_long(n_tokens: int, max_length: int) -> SpecError:
    return SpecError("--max-length", f"the prompt alone takes {n_tokens} tokens", str(max_length))


def cut_text(n_tokens: int, within: tuple[int, int], max_length: int) -> tuple[NDArray[np.intp], tuple[int, int]]:
    """Which tokens to keep, and the text's range among them: tokens go from the end of the text until it fits.

    What stands around the text stays whole.

    Raises SpecError if that alone is too long.
    """
    start, stop = within
    surplus = max(0, n_tokens - max_length)
    if surplus and stop - start <= surplus:
        raise _prompt_too_long(n_tokens - (stop - start), max_length)
    kept = np.concatenate([np.arange(stop - surplus), np.arange(stop, n_tokens)])
    return kept, (start, stop - surplus)
