"""Everything that determines a hidden state, in one list: an option of extraction is a field of ``ReadSpec``.

What a field may be, when it is written, and in which comparisons it counts stand beside it. Its JSON is the spec of a
cache, which is hashed to the fingerprint, and what a saved probe's card keeps of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from probekit.errors import ProbekitError
from probekit.fields import (
    DIGEST,
    DTYPE,
    LAYERS,
    MOST_LAYERS,
    TEXT,
    TRUTH,
    Field,
    check_fields,
    is_text,
    list_of,
    nullable,
    one_of,
    whole,
)
from probekit.spec import LAST_LAYERS, PLACE, POOL_OVER, POOLING_NAMES, SIDES, SITES, Json

Written = Literal["always", "once known", "where used"]


@dataclass(frozen=True)
class About:
    """What is known of a field of ``ReadSpec``.

    ``allowed``: what its JSON may be. ``written``: "always"; "once known", which None is not, for what the model, the
    data or the device decide; or "where used", for what most caches lack, so that older ones keep their fingerprint.
    ``required``: whether every cache ever made says it. ``usual``: the value that needs no mention, as None needs none;
    ``heading``: what people call it where it has another. ``card``: whether a probe needs it to read another text in
    the same way, and its place among the fields of a card (lower first, those alike in their order here).
    ``same_states``: whether states mean the same only where it is equal. ``may_differ``: whether the control with
    random weights may have another: "no", "yes", or "not for spans", which it gives the place of. ``named``: whether it
    tells caches of the same texts apart.
    """

    allowed: Field
    written: Written
    required: bool
    usual: Any = None
    heading: str = ""
    card: int | None = None
    same_states: bool = False
    may_differ: Literal["no", "yes", "not for spans"] = "no"
    named: bool = True


def _always(allowed: Field, default: Any, **about: Any) -> Any:
    about = {"usual": default} | about
    return dataclasses.field(default=default, metadata={"about": About(allowed, "always", True, **about)})


def _once_known(allowed: Field, *, required: bool = True, **about: Any) -> Any:
    return dataclasses.field(default=None, metadata={"about": About(allowed, "once known", required, **about)})


def _where_used(allowed: Field, default: Any = None, **about: Any) -> Any:
    about = {"usual": default} | about
    return dataclasses.field(default=default, metadata={"about": About(allowed, "where used", False, **about)})


_PROMPT = Field(f"text with {PLACE} in it exactly once", lambda value: is_text(value) and value.count(PLACE) == 1)
_COLUMN = Field("the name of a column", lambda value: isinstance(value, str))
_POOLINGS = list_of(", ".join(POOLING_NAMES), lambda name: name in POOLING_NAMES)
_AROUND = Field(
    "a list of two texts",
    lambda value: isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value),
)
_SEED = whole(-(2**63), 2**64 - 1)


@dataclass(frozen=True)
class ReadSpec:
    """How texts are read into hidden states; None where the model, the data or the device are still to decide.

    ``model``, ``revision``, ``tokenizer``: which, and the hashes that pin them. ``texts``, ``columns``: digests of the
    data. ``store_dtype``, ``tokens``: of pooled states and of those of every token, None for none. ``prompt``: with
    ``{text}`` in it. ``random_seed``: of weights drawn anew from the model's own initialisation, for the control of how
    much an untrained model of this shape gives. ``quantize``: "8bit" or "4bit" weights. ``device``: its kind.
    ``batching``: "packed", "padded", or "single" where a text's states depend on its batch. ``words``: the column of
    data that came as words. ``rendered``: what the model's chat template put before and after every text;
    ``rendered_trim``: and where it cut blanks off.
    """

    format_version: int | None = _once_known(whole(1, 1_000), required=False, may_differ="yes", named=False)
    model: str | None = _once_known(TEXT, card=1, same_states=True)
    revision: str | None = _once_known(TEXT, card=1, same_states=True, may_differ="yes")
    tokenizer: str | None = _once_known(TEXT, card=1, same_states=True)
    texts: str | None = _once_known(DIGEST, required=False)
    columns: str | None = _once_known(DIGEST, required=False, may_differ="not for spans", named=False)
    store_dtype: str = _always(DTYPE, "float32", usual=None, card=3, may_differ="yes")
    store_text: bool = _always(TRUTH, True, may_differ="yes", named=False)
    tokens: str | None = _always(nullable(DTYPE), None, card=4, may_differ="yes", named=False)
    prompt: str | None = _always(nullable(_PROMPT), None, heading="prompt", card=3)
    chat_template: bool = _always(TRUTH, False, heading="chat template", card=3)
    pool_over: str = _always(one_of(*POOL_OVER), "all", heading="pooled over", card=3)
    side: str = _always(one_of(*SIDES), "encoder", heading="side", card=3, same_states=True)
    site: str = _always(one_of(*SITES), "block", heading="site", card=3, same_states=True)
    random_seed: int | None = _always(nullable(_SEED), None, card=3, same_states=True, may_differ="yes")
    quantize: str | None = _always(
        nullable(one_of("8bit", "4bit")), None, heading="quantized", card=3, same_states=True
    )
    n_layers: int | None = _once_known(whole(0, MOST_LAYERS), same_states=True, named=False)
    layers: tuple[int, ...] | None = _once_known(LAYERS, may_differ="yes", named=False)
    poolings: tuple[str, ...] | None = _once_known(_POOLINGS, may_differ="yes", named=False)
    max_length: int | None = _once_known(nullable(whole(1, 2**31)), card=2)
    device: str | None = _once_known(TEXT, may_differ="yes")
    dtype: str | None = _once_known(DTYPE, card=2, may_differ="yes")
    batching: str | None = _once_known(
        one_of("packed", "padded", "single"), required=False, card=7, may_differ="yes", named=False
    )
    batch_tokens: int | None = _once_known(whole(1, 2**31), card=2, may_differ="yes", named=False)
    stride: int | None = _where_used(nullable(whole(0, 2**31)), heading="stride", card=5)
    last_layer: str = _where_used(one_of(*LAST_LAYERS), "normed", heading="last layer", card=6, same_states=True)
    words: str | None = _where_used(nullable(_COLUMN), may_differ="not for spans", named=False)
    rendered: tuple[str, str] | None = _once_known(_AROUND, required=False, heading="rendered", card=5)
    rendered_trim: str | None = _once_known(one_of("both", "left", "right"), required=False, card=5)

    def json(self) -> Json:
        """The fields as JSON, without those that are still to be decided and those that are not used."""
        found = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if FIELDS[field.name].written == "always" or value != field.default:
                found[field.name] = list(value) if isinstance(value, tuple) else value
        return found

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> ReadSpec:
        """The spec of checked JSON; what a later version has beside is left out."""
        known = {name: value for name, value in found.items() if name in FIELDS}
        lists: Json = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
        return ReadSpec(**(known | lists))

    def for_card(self) -> Json:
        """What reading another text in the same way needs, as a probe's card has it."""
        found = self.json()
        names = sorted((name for name in found if FIELDS[name].card is not None), key=lambda n: FIELDS[n].card or 0)
        # How texts are read together is decided anew where they are read, unless they can't be.
        return {name: found[name] for name in names if name != "batching" or found[name] == "single"}


@dataclass(frozen=True)
class RunOptions:
    """How the work is done, which changes no value: ``device`` as a user names it ("auto", "cuda:1")."""

    device: str = "auto"
    threads: int | None = None
    allow_nonfinite: bool = False
    trust_remote_code: bool = False
    overwrite: bool = False


FIELDS: Mapping[str, About] = MappingProxyType(
    {field.name: field.metadata["about"] for field in dataclasses.fields(ReadSpec)}
)
"""What is known of each field of ``ReadSpec``, in their order."""


def check_spec(spec: Json, source: str, *, error: type[ProbekitError]) -> None:
    """Raise ``error`` for the first field that no spec of a cache can have."""
    check_fields(spec, {name: about.allowed for name, about in FIELDS.items()}, source, error)
    deepest = spec.get("layers", [0])[-1]
    last = spec.get("n_layers", deepest) + (spec.get("last_layer") == "both")
    if deepest > last:
        raise error(f"{source}, field 'layers'", f"must be of {last} layers", str(deepest))


def check_made(spec: Json, source: str, *, error: type[ProbekitError]) -> None:
    """Raise ``error`` where ``spec`` lacks something that every extraction says."""
    missing = [name for name, about in FIELDS.items() if about.required and name not in spec]
    if missing:
        raise error(source, "must say what it was made from", f"no {', '.join(missing)}")


def missing_to_read(card: Json, *, of_words: bool) -> list[str]:
    """What a probe's card would have to say of its cache, so that other texts can be read in the same way.

    ``of_words``: whether the states of tokens are read.
    """
    missing = [name for name, about in FIELDS.items() if about.required and about.card and name not in card]
    needed = ["max_length", *(["tokens"] if of_words else [])]
    return missing + [name for name in needed if card.get(name, "") is None]


def different_model(mine: Json, other: Json) -> tuple[str, Any, Any] | None:
    """The first field by which the states of two specs don't mean the same, and both values; None if they do."""
    for name, about in FIELDS.items():
        if about.same_states and mine.get(name) != other.get(name):
            return name, mine.get(name), other.get(name)
    return None


def different_reading(mine: Json, random: Json) -> tuple[str, Any, Any] | None:
    """The first field by which ``random`` is no reading of the same texts in the same way by random weights, or None.

    Fields of a later version count.
    """
    free = {"yes"} if mine.get("pool_over") == "span" else {"yes", "not for spans"}
    for name in dict.fromkeys([*mine, *random]):
        if mine.get(name) != random.get(name) and (name not in FIELDS or FIELDS[name].may_differ not in free):
            return name, mine.get(name), random.get(name)
    return None


def different_for_card(card: Json, spec: Json) -> tuple[str, Any, Any] | None:
    """The first field by which a cache was not read as a probe's card says (its ``cache``), and both; None if it was.

    How precisely states were computed, stored and batched is no difference.
    """
    mine, other = (ReadSpec.from_json(found).for_card() for found in (card, spec))
    for name, about in FIELDS.items():
        counts = about.card is not None and (about.may_differ == "no" or about.same_states)
        if counts and mine.get(name) != other.get(name):
            return name, mine.get(name), other.get(name)
    return None


def shown_fields(spec: Json) -> Json:
    """What may tell a cache from others of the same texts: fields with a value that is not the usual one."""
    return {
        name: value
        for name, value in spec.items()
        if value is not None and (name not in FIELDS or (FIELDS[name].named and value != FIELDS[name].usual))
    }


def headings(spec: Json) -> Json:
    """What of a spec is not as usual, by what people call it."""
    return {
        about.heading: spec[name]
        for name, about in FIELDS.items()
        if about.heading and spec.get(name) is not None and spec[name] != about.usual
    }
