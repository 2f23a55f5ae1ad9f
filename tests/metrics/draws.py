"""Predictions to draws, as the layer table makes them."""

from __future__ import annotations

import numpy as np

from probekit.metrics.bootstrap import N_DRAWS, bootstrap_terms


def bootstrap_draws(score, truth, predicted, *, groups, seed, n_draws=N_DRAWS):
    """``truth``: (n, ...). ``predicted``: (n, n_layers, ...)."""
    terms = np.stack([score.terms(truth, predicted[:, k]) for k in range(predicted.shape[1])], axis=1)
    return bootstrap_terms(score.value, terms, groups=groups, seed=seed, n_draws=n_draws)
