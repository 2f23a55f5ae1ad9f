"""What is predicted: one file per kind of target, and the columns of labels that become targets."""

from __future__ import annotations

from probekit.tasks.classes import CLASSES
from probekit.tasks.labels import LABELS
from probekit.tasks.numbers import NUMBERS
from probekit.tasks.target import Target, Words
from probekit.tasks.task import States, Task
from probekit.tasks.words import ENTITIES, TAGS

__all__ = ["TASKS", "States", "Target", "Task", "Words"]

TASKS: dict[str, Task] = {task.name: task for task in (CLASSES, NUMBERS, LABELS, TAGS, ENTITIES)}
"""By their names in tables, cards and ``--task``."""
