"""Bars on one scale: where it begins and ends is said, and below zero they go to the left of a zero line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from probekit.report.labels import LOWEST_R2, number

HALF_CELLS = {(True, True): "█", (True, False): "▌", (False, True): "▐", (False, False): " "}
ZERO, CUT = "│", "<"


@dataclass(frozen=True)
class Scale:
    """From ``low`` at the left to ``high`` at the right. With ``low`` below zero, bars begin at zero.

    ``cut``: some values lie below ``low``.
    """

    low: float
    high: float
    cut: bool = False

    def heading(self, width: int) -> str:
        """Both ends, and the zero between them if there is room."""
        left, right = self._ends
        if self.low < 0 < self.high:
            zero = self._zero(width)
            if len(left) < zero < width - len(right) - 1:
                left = f"{left:<{zero}}0"
        return left + right.rjust(width - len(left))

    @property
    def narrowest(self) -> int:
        """Characters that both ends take."""
        return sum(map(len, self._ends)) + 1

    @property
    def _ends(self) -> tuple[str, str]:
        return (CUT if self.cut else "") + number(self.low), number(self.high)

    def bar(self, value: float, width: int) -> str:
        """``value`` as ``width`` characters; ``<`` at the left: it lies further down than the scale goes."""
        start, stop = self._filled(value, width)
        cells = [HALF_CELLS[start <= 2 * i < stop, start <= 2 * i + 1 < stop] for i in range(width)]
        if self.low < 0:
            cells[self._zero(width)] = ZERO
        if value < self.low:
            cells[0] = CUT
        return "".join(cells)

    def _filled(self, value: float, width: int) -> tuple[int, int]:
        """Where the bar begins and ends, in half cells."""
        if not math.isfinite(value) or (self.low < 0 and value == 0):
            return 0, 0
        end = round(self._share(value) * width * 2)
        if self.low >= 0:
            return 0, end
        zero = self._zero(width)
        return (2 * zero + 2, end) if value > 0 else (end, 2 * zero)

    def _share(self, value: float) -> float:
        return min(max((value - self.low) / max(self.high - self.low, 1e-9), 0.0), 1.0)

    def _zero(self, width: int) -> int:
        """The cell of the zero line; what is below zero has one cell at least."""
        return min(max(int(self._share(0.0) * width), 1), width - 1)


def scale_of(scores: Sequence[float], baseline: float, *, is_r2: bool) -> Scale:
    """From the lowest score, or the baseline below it, to the best; R² far below zero does not stretch it."""
    finite = [value for value in (*scores, baseline) if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    if low >= 0:
        return Scale(low, high)
    if is_r2 and low < LOWEST_R2:
        return Scale(LOWEST_R2, max(high, 0.0), cut=True)
    return Scale(low, max(high, 0.0))
