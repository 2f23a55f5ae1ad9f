"""A chat template at work: a stranger's program, which may loop, fill the memory or raise what it likes."""

from __future__ import annotations

import multiprocessing
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

from transformers import PreTrainedTokenizerBase
from transformers.utils import chat_template_utils

from probekit.errors import SpecError

SECONDS = 10
MEMORY = 1 << 30
CHARACTERS = 1_000_000


def rendered_chats(tokenizer: PreTrainedTokenizerBase, messages: Sequence[str]) -> list[str]:
    """Each of ``messages`` as the user's only one, in the chat template, with the beginning of the answer.

    The clock stands still meanwhile, so that they differ in the messages alone.

    A template is a program, so it runs in a process of its own that has 10 seconds and a gigabyte (where processes can
    be forked and limited; elsewhere it just runs).

    Raises SpecError for a template that raises, or does not end within these limits.
    """
    if not sys.platform.startswith("linux"):
        return _checked(_render(tokenizer, messages))
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_render_bounded, args=(sender, tokenizer, messages), daemon=True)
    with warnings.catch_warnings():
        # Python warns of forks beside threads; the child runs the template and nothing else.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    sender.close()
    found: list[str] | str = f"it did not end within {SECONDS} seconds and {MEMORY >> 30} GB"
    with suppress(EOFError):  # it was killed at a limit
        if receiver.poll(2 * SECONDS):
            found = receiver.recv()
    process.kill()
    process.join()
    receiver.close()
    return _checked(found)


def _checked(found: list[str] | str) -> list[str]:
    if isinstance(found, str):
        raise SpecError("--chat-template", "the model's chat template must render a message", found)
    return found


def _render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[str]) -> list[str] | str:
    """The texts, or else what went wrong."""
    found = []
    for message in messages:
        try:
            text = tokenizer.apply_chat_template(
                [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # noqa: BLE001  (a template can raise anything)
            return " ".join(f"{type(error).__name__}: {error}".split())[:300]
        if not isinstance(text, str) or len(text) > CHARACTERS + len(message):
            return f"more than {CHARACTERS:,} characters" if isinstance(text, str) else "no text"
        found.append(text)
    return found


def _render_bounded(sender: Connection, tokenizer: PreTrainedTokenizerBase, messages: Sequence[str]) -> None:
    import resource  # noqa: PLC0415  (not on every system)

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    now = datetime.now()
    chat_template_utils.datetime = SimpleNamespace(now=lambda: now)  # (of this process alone)
    sender.send(_render(tokenizer, messages))
