"""A training in a YAML file: what is trained on which cache, every field checked, every mistake one line.

Its fields are those of ``TrainOptions`` and, for each target, of ``HeadOptions``, and are written nowhere else. YAML is
read as version 1.2 has it: ``yes`` and ``no`` are text, ``1e-3`` is a number. There are no anchors, aliases, or tags.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from probekit.errors import SpecError, UserError, missing_package
from probekit.fields import shown
from probekit.readspec import RunOptions
from probekit.training.options import HeadOptions, TrainOptions

MOST_BYTES = 256 << 10
DEEPEST = 20
"""Lists and mappings inside each other."""

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NUMBER_WITH_ZEROS = re.compile(r"[-+]?0[0-9]+")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}

_CALLED = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "nothing"}


@dataclass(frozen=True)
class TrainFile:
    """What a file says. Paths in it count from the file's own folder; ``model`` may also be a hub id."""

    cache: Path
    options: TrainOptions
    run: RunOptions
    out: Path | None
    model: str | None
    prompts: tuple[str, ...] = ()
    jobs: int | None = None

    def parts(self) -> tuple[Path, TrainOptions, RunOptions, Path | None, str | None]:
        """All of it but ``prompts`` and ``jobs``, in the order of the fields, for ``probekit.api.train.run_heads``."""
        return self.cache, self.options, self.run, self.out, self.model


def read_train_file(path: Path) -> TrainFile:
    """Read and check a file.

    Raises SpecError for what is no YAML, for a name that is not known or said twice, and for a value that can't be.
    """
    name = path.name
    found = _checked(_read_yaml(path), name)
    targets = found.pop("targets")
    cache, out, model = Path(found.pop("cache")), found.pop("out"), found.pop("model")
    prompts, jobs = found.pop("prompts"), found.pop("jobs")
    if jobs is not None and jobs < 1:
        raise SpecError(f"{name}, jobs", "a whole number of at least 1", str(jobs))
    run = RunOptions(**{field: found.pop(field) for field in _RUN})
    try:
        heads = tuple(HeadOptions(target, **options) for target, options in targets.items())
        options = TrainOptions(heads, **found)
    except SpecError as error:
        raise in_file(error, name, _in_fields(error.allowed)) from None
    folder = path.parent
    here = model is not None and (folder / Path(os.path.expanduser(model))).exists()
    return TrainFile(
        cache=folder / os.path.expanduser(cache),
        options=options,
        run=run,
        out=None if out is None else folder / Path(os.path.expanduser(out)),
        model=str(folder / Path(os.path.expanduser(model))) if here else model,
        prompts=prompts,
        jobs=jobs,
    )


def in_file(error: UserError, name: str, allowed: str | None = None) -> UserError:
    """The same error, of a field of the file ``name``; ``allowed``: other words for what would be right."""
    return type(error)(f"{name}, {_in_fields(error.source)}", allowed or error.allowed, error.got)


def _in_fields(text: str) -> str:
    """Options by the names that they have in a file."""
    return re.sub(r"(^|(?<=[ (]))--([a-z][a-z0-9-]*)", lambda option: option[2].replace("-", "_"), text)


# Fields

_RUN = ("device", "threads")
_Fields = dict[str, tuple[Any, Any]]
"""Types and defaults by name; ``...`` for no default."""


def _of_dataclass(kind: type, names: Sequence[str]) -> _Fields:
    """Those of a dataclass; a tuple is a list in YAML."""
    hints = get_type_hints(kind)
    defaults = {field.name: field.default for field in fields(kind)}
    found = {}
    for name in names:
        hint = list[get_args(hints[name])[0]] if get_origin(hints[name]) is tuple else hints[name]  # type: ignore[misc]
        default = ... if defaults[name] is MISSING else defaults[name]
        found[name] = (hint, list(default) if isinstance(default, tuple) else default)
    return found


def _of_target() -> _Fields:
    return _of_dataclass(HeadOptions, [field.name for field in fields(HeadOptions) if field.name != "target"])


def _of_file() -> _Fields:
    return {
        "cache": (str, ...),
        "out": (str | None, None),
        "model": (str | None, None),
        "prompts": (list[str], []),
        **_of_dataclass(RunOptions, _RUN),
        "jobs": (int | None, None),
        "targets": (dict[str, Any], ...),
        **_of_dataclass(TrainOptions, [field.name for field in fields(TrainOptions) if field.name != "heads"]),
    }


def _checked(found: Any, name: str) -> dict[str, Any]:
    """Values by name, with defaults; tuples where options have tuples, and those of targets by target."""
    whole = _fill(found, _of_file(), (name,))
    if not whole["targets"]:
        raise SpecError(f"{name}, targets", "at least one column")
    of_target, checked = _of_target(), {}
    for target, given in whole["targets"].items():
        checked[target] = _fill({} if given is None else given, of_target, (name, f"targets.{_plain(target)}"))
    return {**whole, "targets": checked}


def _fill(found: Any, known: _Fields, place: tuple[str, ...]) -> dict[str, Any]:
    """``found`` checked by pydantic; ``place``: the file, and where in it."""
    pydantic = _package("pydantic", place[0])
    if not isinstance(found, dict):
        raise SpecError(", ".join(place), "a mapping of names to values", _shown(found))
    for name in found:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SpecError(_at(place, name), f"one of {', '.join(known)}{hint}")
    model = pydantic.create_model("Fields", __config__={"extra": "forbid", "strict": True}, **known)
    try:
        values = model(**found)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        if first["type"] == "missing":
            raise SpecError(_at(place, name), "must be there") from None
        raise SpecError(_at(place, name), _allowed(known[name][0]), _shown(found[name])) from None
    listed = {name: getattr(values, name) for name in known}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in listed.items()}


def _at(place: tuple[str, ...], name: str) -> str:
    file, *inside = place
    return f"{file}, {'.'.join([*inside, _plain(name)])}"


def _allowed(hint: Any) -> str:
    """What a type is called."""
    if get_origin(hint) in (Union, UnionType):
        parts = [_allowed(part) for part in get_args(hint)]
        return " or ".join(part for part in parts if part != "nothing")
    if get_origin(hint) is list:
        return f"a list of {_CALLED[get_args(hint)[0]]}s"
    return "a mapping of columns to what their heads are" if get_origin(hint) is dict else _CALLED[hint]


def _plain(name: str) -> str:
    """On one line, whatever it is."""
    return name if name.isprintable() else ascii(name)


def _shown(value: Any) -> str:
    return "nothing" if value is None else shown(value)


def _package(name: str, file: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise missing_package(file, {"yaml": "pyyaml"}.get(name, name), "train") from error


# YAML


def _read_yaml(path: Path) -> Any:
    name = path.name
    yaml = _package("yaml", name)
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise SpecError(str(path), "must be a file that can be read", error.strerror or "") from error
    if len(data) > MOST_BYTES:
        raise SpecError(name, f"at most {MOST_BYTES:,} bytes", "more")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SpecError(f"{name}, line {line}", "must be UTF-8 text", f"the byte {data[error.start]:#04x}") from None
    try:
        events = yaml.parse(text, Loader=yaml.SafeLoader)
        return _document(yaml, events, name)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = name if mark is None else f"{name}, line {mark.line + 1}"
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or type(error).__name__
        raise SpecError(where, "must be YAML", " ".join(str(reason).split())) from None


def _document(yaml: Any, events: Iterator[Any], name: str) -> Any:
    """The one document there is; None for an empty file."""
    value, seen = None, False
    for event in events:
        if isinstance(event, yaml.NodeEvent):
            if seen:
                raise SpecError(f"{name}, line {event.start_mark.line + 1}", "one document in a file", "another")
            value, seen = _value(yaml, event, events, name, 0), True
    return value


def _value(yaml: Any, event: Any, events: Iterator[Any], name: str, depth: int) -> Any:
    """What begins with ``event``; the events that belong to it are taken."""
    where = f"{name}, line {event.start_mark.line + 1}"
    if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
        raise SpecError(where, "must say everything where it is used", "an anchor or alias (& or *)")
    if event.tag is not None:
        raise SpecError(where, "must be plain values", f"the tag {_plain(event.tag)[:80]}")
    if depth > DEEPEST:
        raise SpecError(where, f"at most {DEEPEST} lists and mappings inside each other")
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event.value) if event.implicit[0] else event.value
    if isinstance(event, yaml.SequenceStartEvent):
        listed = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            listed.append(_value(yaml, event, events, name, depth + 1))
        return listed
    found: dict[str, Any] = {}
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        where = f"{name}, line {event.start_mark.line + 1}"
        key = _value(yaml, event, events, name, depth + 1)
        if not isinstance(key, str):
            written = event.value if isinstance(event, yaml.ScalarEvent) else _shown(key)
            raise SpecError(where, "names must be text: put them in quotes", _plain(written)[:80] or "nothing")
        if not key or key in found:
            raise SpecError(where, "names must be there once", repr(key)[:80])
        found[key] = _value(yaml, next(events), events, name, depth + 1)
    return found


def _scalar(text: str) -> Any:
    """A plain value by the core schema of YAML 1.2, without hexadecimal and octal numbers and infinities."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and not _NUMBER_WITH_ZEROS.fullmatch(text):
        return float(text)
    return text
