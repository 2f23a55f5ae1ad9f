"""What the table of an intervention says in words, and what it does not say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probekit.explanation.intervention import LOSS, PROBE
from probekit.spec import Json

if TYPE_CHECKING:
    import pandas as pd

FEW_TEST = 100
"""Test rows: with fewer, a difference of a few rows decides, and none at all gives an interval of no width."""


def verdict(table: pd.DataFrame) -> tuple[str, ...]:
    """What the table says in words, and what it does not say."""
    rows: list[Json] = [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
    probes = [row for row in rows if row["measure"] == PROBE and row["layer"] > row["erased_at"]]
    last = probes[-1]
    steered = bool(table["steer"].notna().all())
    found = [_probe_verdict(last, steered=steered)]
    if last["n_test"] < FEW_TEST:
        found.append(f"Weak: only {last['n_test']:.0f} test rows; such an interval is too narrow to lean on.")
    found += [_spoken_verdict(row, steered=steered) for row in rows if row["measure"] != PROBE]
    where = f"the {last['pooling']}-pooled states of layer {last['erased_at']}"
    if steered:
        return (
            *found,
            f"It is not said that the model takes this step by itself: it was pushed by what separates {where}.",
        )
    return (
        *found,
        f"What is not said: that nothing else is used. Taken out is what a linear reader finds in {where}; layers "
        "above may still find the label in single tokens, or in what is not linear.",
    )


def _probe_verdict(row: Json, *, steered: bool) -> str:
    layer, at, target = row["layer"], row["erased_at"], row["target"]
    if steered:
        moved = f"the mean answer of the fixed probe of layer {layer} by {row['shift']:+.3f}"
        return (
            f"Steering by {row['steer']:g} moves {moved}, random directions of that length by "
            f"{row['random_shift']:+.3f}; the difference has the 95% interval {_interval(row, 'shift')}."
        )
    after = row["score_before"] - row["causal_drop"]
    beyond = _beyond(row)
    numbers = f"layer {layer} from {row['score_before']:.3f} to {after:.3f}, {beyond}"
    if row["ci_low"] > 0:
        return f"What the probe reads at layer {at} is used above it: without it probes of {target} fall at {numbers}."
    return f"No sign that what the probe reads at layer {at} is used above it: probes of {target} go at {numbers}."


def _spoken_verdict(row: Json, *, steered: bool) -> str:
    beyond = _beyond(row)
    numbers = f"from {row['score_before']:.3f} to {row['score_fixed']:.3f}, {beyond}"
    clear = row["ci_low"] > 0
    if row["measure"] == LOSS and steered:
        return f"The next-token loss goes {numbers}."
    if row["measure"] == LOSS:
        uses = "It counts for the next token" if clear else "No sign that it counts for the next token"
        return f"{uses}: the loss goes {numbers}."
    if steered:
        random = (
            f"with random directions by {row['random_shift']:+.3f}, 95% of the difference {_interval(row, 'shift')}"
        )
        return f"The model's own answer moves by {row['shift']:+.3f} in logits ({random}); its AUROC goes {numbers}."
    uses = "The model uses it for its own answer" if clear else "No sign that the model uses it for its own answer"
    return f"{uses}: AUROC goes {numbers}."


def _beyond(row: Json) -> str:
    beyond = row["beyond_random"]
    than = f"{abs(beyond):.3f} {'less' if beyond < 0 else 'more'} than with random directions"
    return f"{than} (95% interval of the difference {_interval(row, 'ci')})"


def _interval(row: Json, name: str) -> str:
    return f"{row[f'{name}_low']:.3f} to {row[f'{name}_high']:.3f}"
