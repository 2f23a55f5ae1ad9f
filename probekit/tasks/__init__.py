"""What is predicted: one kind of target per file, and the columns of labels that become targets."""

from __future__ import annotations

from probekit.tasks.label_sets import label_lists, parse_lists
from probekit.tasks.target import KINDS, Target, Task, guess_task, is_missing, read_target, spread

__all__ = [
    "KINDS",
    "Target",
    "Task",
    "guess_task",
    "is_missing",
    "label_lists",
    "parse_lists",
    "read_target",
    "spread",
]
