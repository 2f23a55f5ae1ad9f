"""A chat template at work: a stranger's program, which may loop, fill the memory or raise what it likes."""

from __future__ import annotations

import multiprocessing
import sys
import warnings
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from probekit.errors import SpecError

SECONDS = 10
MEMORY = 1 << 30
CHARACTERS = 1_000_000


@dataclass(frozen=True)
class Rendered:
    """A text, or else what went wrong."""

    text: str | None
    problem: str = ""


def rendered_chat(tokenizer: PreTrainedTokenizerBase, message: str) -> str:
    """``message`` as the user's only one, in the chat template, with the beginning of the answer.

    A template is a program, so it runs in a process of its own that has 10 seconds and a gigabyte (where processes can
    be forked and limited; elsewhere it just runs).

    Raises SpecError for a template that raises, or does not end within these limits.
    """
    if not sys.platform.startswith("linux"):
        return _checked(_render(tokenizer, message))
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_render_bounded, args=(sender, tokenizer, message), daemon=True)
    with warnings.catch_warnings():
        # Python warns of forks beside threads; the child runs the template and nothing else.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    sender.close()
    found = Rendered(None, f"it did not end within {SECONDS} seconds and {MEMORY >> 30} GB")
    with suppress(EOFError):  # it was killed at a limit
        if receiver.poll(2 * SECONDS):
            found = receiver.recv()
    process.kill()
    process.join()
    receiver.close()
    return _checked(found)


def _checked(found: Rendered) -> str:
    if found.text is None:
        raise SpecError("--chat-template", "the model's chat template must render a message", found.problem)
    return found.text


def _render(tokenizer: PreTrainedTokenizerBase, message: str) -> Rendered:
    try:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True
        )
    except Exception as error:  # noqa: BLE001  (a template can raise anything)
        return Rendered(None, " ".join(f"{type(error).__name__}: {error}".split())[:300])
    if not isinstance(text, str) or len(text) > CHARACTERS:
        return Rendered(None, f"more than {CHARACTERS:,} characters" if isinstance(text, str) else "no text")
    return Rendered(text)


def _render_bounded(sender: Connection, tokenizer: PreTrainedTokenizerBase, message: str) -> None:
    import resource  # noqa: PLC0415  (not on every system)

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    sender.send(_render(tokenizer, message))
