"""What is asked of caches to the few-shot table."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

import pandas as pd

from probekit.evaluate import Shots, few_shots
from probekit.evaluate.plan import Asked
from probekit.spec import Listener


def shot_table(
    asked: Sequence[Asked], shots: Shots, *, executor: Executor | None, listener: Listener | None
) -> pd.DataFrame:
    """Few-shot curves of every layer: a probe learns from k training rows of each class and is scored on the test rows.

    For numbers k rows in all, and where texts have several labels k rows with each. The probe is logistic regression
    with C = 1 or ridge with alpha = d_model on standardised states (so few rows can't choose), or with ``shots=MTEB``
    what MTEB's classification protocol says: 8 rows of each class, states of length 1, no scaler. The probes and
    controls that are asked for don't matter here.

    Returns one row per target x pooling x layer x number of shots, columns ``SHOT_COLUMNS``.
    """
    done = [
        few_shots(
            one.sources,
            one.targets,
            one.question,
            shots=shots,
            origin=one.origin,
            executor=executor,
            listener=listener,
        )
        for one in asked
    ]
    return pd.concat(done, ignore_index=True)
