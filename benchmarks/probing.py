"""Speed and agreement of the fast probes against scikit-learn's own grid search.

One process, one BLAS thread, variants interleaved, the median of ``--repeats`` runs:

    python benchmarks/probing.py [--quick] [--repeats 3] [--probe logistic,ridge,mlp]

prints one markdown table per probe (the MLP's, on a few hundred rows, is of agreement: its fits are scikit-learn's).
Features are synthetic but shaped like hidden states: a power-law spectrum in a
rotated basis, and a few dimensions with massive activations. Labels follow a noisy linear rule, so that the best
regularisation lies inside the grid.
"""

from __future__ import annotations

import argparse
import statistics
import time
import tracemalloc
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info, threadpool_limits

from probekit.probes.logistic import C_GRID, fit_logistic
from probekit.probes.mlp import DECAY_GRID, MAX_EPOCHS, MOST_FOLDS, WIDTH_GRID, fit_mlp
from probekit.probes.result import Folds
from probekit.probes.ridge import ALPHA_PER_DIMENSION, fit_ridge
from probekit.store import Cache, open_cache

N_TEST = 4000
N_FOLDS = 5
N_FEW = 300  # rows for the MLP


@dataclass(frozen=True)
class Data:
    """Training and test rows with their targets, and the inner folds."""

    X: NDArray[np.float32]
    y: NDArray[Any]
    X_test: NDArray[np.float32]
    y_test: NDArray[Any]
    folds: Folds


@dataclass(frozen=True)
class Outcome:
    """What a variant chose and how well it does; ``seconds`` and ``peak_mib`` of one run."""

    seconds: float
    peak_mib: float
    choice: float
    cv_score: float
    test_score: float


def hidden_states(n: int, d: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """(n, d) rows with standard deviations falling like 1/sqrt(rank) in a random basis, plus massive activations."""
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
    latent = rng.standard_normal((n, d)) * (np.arange(1, d + 1) ** -0.5)
    X = latent @ basis.T
    X[:, :3] = 40.0 * X[:, :3] + np.array([300.0, -150.0, 80.0])
    return X.astype(np.float32)


def classification(n: int, d: int, n_classes: int, seed: int) -> Data:
    """Labels drawn from a softmax of a linear rule on the standardised features."""
    rng = np.random.default_rng(seed)
    X = hidden_states(n + N_TEST, d, rng)
    Z = StandardScaler().fit_transform(X.astype(np.float64))
    scores = Z @ rng.standard_normal((d, n_classes))
    scores *= 2.0 / scores.std(axis=0)
    y = np.argmax(scores + rng.gumbel(size=scores.shape), axis=1)
    folds = list(StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed).split(X[:n], y[:n]))
    return Data(X[:n], y[:n], X[n:], y[n:], folds)


def regression(n: int, d: int, n_targets: int, seed: int) -> Data:
    """Targets of very different scale from a linear rule with as much noise as signal."""
    rng = np.random.default_rng(seed)
    X = hidden_states(n + N_TEST, d, rng)
    Z = StandardScaler().fit_transform(X.astype(np.float64))
    signal = Z @ rng.standard_normal((d, n_targets))
    signal /= signal.std(axis=0)
    y = (signal + rng.standard_normal(signal.shape)) * np.logspace(0, 2, n_targets)
    folds = list(KFold(N_FOLDS, shuffle=True, random_state=seed).split(X[:n]))
    return Data(X[:n], y[:n], X[n:], y[n:], folds)


def logistic_baseline(data: Data) -> tuple[float, float, float]:
    """GridSearchCV over C, as people write it: C, CV score, test accuracy."""
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        {"logisticregression__C": list(C_GRID)},
        scoring="neg_log_loss",
        cv=data.folds,
    ).fit(data.X, data.y)
    return search.best_params_["logisticregression__C"], search.best_score_, _test_accuracy(search, data)


def logistic_fast(data: Data, *, full_grid: bool) -> tuple[float, float, float]:
    """The same by :func:`fit_logistic`."""
    fitted = fit_logistic(data.X, data.y, folds=data.folds, seed=0, full_grid=full_grid)
    return fitted.regularisation, fitted.cv_score, _test_accuracy(fitted.estimator, data)


def ridge_baseline(data: Data) -> tuple[float, float, float]:
    """GridSearchCV over alpha: alpha, CV score, test R²."""
    alphas = [data.X.shape[1] * a for a in ALPHA_PER_DIMENSION]
    search = GridSearchCV(
        make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": alphas}, scoring="r2", cv=data.folds
    ).fit(data.X, data.y)
    return search.best_params_["ridge__alpha"], search.best_score_, r2_score(data.y_test, search.predict(data.X_test))


def ridge_fast(data: Data) -> tuple[float, float, float]:
    """The same by :func:`fit_ridge`."""
    fitted = fit_ridge(data.X, data.y, folds=data.folds, seed=0)
    return fitted.regularisation, fitted.cv_score, r2_score(data.y_test, fitted.estimator.predict(data.X_test))


def mlp_regression(n: int, d: int, seed: int) -> Data:
    """Half of the signal lies along directions, half in a product of two of them."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n + N_TEST, d))
    y = X[:, 0] + X[:, 1] * X[:, 2] + 0.5 * rng.standard_normal(len(X))
    folds = list(KFold(N_FOLDS, shuffle=True, random_state=seed).split(X[:n]))
    return Data(X[:n].astype(np.float32), y[:n], X[n:].astype(np.float32), y[n:], folds)


def mlp_baseline(data: Data) -> tuple[float, float, float]:
    """GridSearchCV over alpha and the width: alpha, CV score, test R²."""
    network = TransformedTargetRegressor(
        MLPRegressor(max_iter=MAX_EPOCHS, random_state=0), transformer=StandardScaler()
    )
    name = "transformedtargetregressor__regressor__"
    search = GridSearchCV(
        make_pipeline(StandardScaler(), network),
        {f"{name}alpha": list(DECAY_GRID), f"{name}hidden_layer_sizes": [(width,) for width in WIDTH_GRID]},
        scoring="r2",
        cv=list(data.folds)[:MOST_FOLDS],
    ).fit(data.X, data.y)
    return search.best_params_[f"{name}alpha"], search.best_score_, r2_score(data.y_test, search.predict(data.X_test))


def mlp_fast(data: Data) -> tuple[float, float, float]:
    """The same by :func:`fit_mlp`."""
    fitted = fit_mlp(data.X, data.y, folds=data.folds, seed=0)
    return fitted.regularisation, fitted.cv_score, r2_score(data.y_test, fitted.estimator.predict(data.X_test))


def _test_accuracy(estimator: Any, data: Data) -> float:
    return float(np.mean(estimator.predict(data.X_test) == data.y_test))


Variant = Callable[[Data], tuple[float, float, float]]


LOGISTIC: dict[str, Variant] = {
    "baseline": logistic_baseline,
    "full grid": lambda data: logistic_fast(data, full_grid=True),
    "early stop (default)": lambda data: logistic_fast(data, full_grid=False),
}


def measure(variants: dict[str, Variant], data: Data, repeats: int, *, memory: bool) -> dict[str, Outcome]:
    """Every variant ``repeats`` times in turn, the median time; the peak of NumPy's allocations in a run of its own."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    results = {}
    for _ in range(repeats):
        for name, variant in variants.items():
            start = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the baseline's convergence warnings at weak regularisation
                results[name] = variant(data)
            seconds[name].append(time.perf_counter() - start)
    peaks = {name: _peak_mib(variant, data) if memory else float("nan") for name, variant in variants.items()}
    return {
        name: Outcome(statistics.median(seconds[name]), peaks[name], *(float(v) for v in results[name]))
        for name in variants
    }


def _peak_mib(variant: Variant, data: Data) -> float:
    """Peak of what Python and NumPy allocate during a run (BLAS work space not counted), in MiB."""
    tracemalloc.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        variant(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def print_row(case: Sequence[object], outcomes: dict[str, Outcome]) -> None:
    """One markdown row per variant other than the baseline."""
    base = outcomes["baseline"]
    for name, fast in outcomes.items():
        if name == "baseline":
            continue
        cells = [
            *case,
            name,
            f"{base.seconds:.2f}",
            f"{fast.seconds:.2f}",
            f"**{base.seconds / fast.seconds:.1f} x**",
            f"{base.choice:g} / {fast.choice:g}",
            f"{fast.cv_score - base.cv_score:+.6f}",
            f"{fast.test_score - base.test_score:+.6f}",
            f"{base.peak_mib:.0f} / {fast.peak_mib:.0f}",
        ]
        print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def print_header(case: Sequence[str], score: str) -> None:
    """The head of a table whose first columns are ``case``."""
    head = [*case, "variant", "baseline s", "probekit s", "faster", "chosen (baseline / probekit)"]
    head += [f"CV {score} difference", "test difference", "peak MiB (baseline / probekit)"]
    print("\n| " + " | ".join(head) + " |\n|" + " --- |" * len(head), flush=True)


def run_logistic(n: int, dimensions: Sequence[int], repeats: int, *, memory: bool) -> None:
    """2 and 10 classes: the full grid and with the early stop."""
    print_header(["n", "d", "classes"], "log-loss")
    for n_classes in (2, 10):
        for d in dimensions:
            data = classification(n, d, n_classes, seed=d)
            print_row([n, d, n_classes], measure(LOGISTIC, data, repeats, memory=memory))


def run_ridge(n: int, dimensions: Sequence[int], repeats: int, *, memory: bool) -> None:
    """One target, and three of different scale."""
    print_header(["n", "d", "targets"], "R²")
    variants: dict[str, Variant] = {"baseline": ridge_baseline, "fast": ridge_fast}
    for d in dimensions:
        for n_targets in (1, 3) if d <= 1000 else (1,):
            data = regression(n, d, n_targets, seed=d)
            print_row([n, d, n_targets], measure(variants, data, repeats, memory=memory))


def run_mlp(n: int, dimensions: Sequence[int], repeats: int, *, memory: bool) -> None:
    """A few hundred rows, numbers."""
    print_header(["n", "d"], "R²")
    for d in dimensions:
        data = mlp_regression(n, d, seed=d)
        print_row([n, d], measure({"baseline": mlp_baseline, "probekit": mlp_fast}, data, repeats, memory=memory))


def real_states(cache: Cache, layer: int, target: str) -> Data:
    """A cache's own rows: its training part to fit on, its test part to score."""
    split, y = cache.column("split"), cache.column(target)
    X = np.array(cache.layer(layer, pooling=cache.poolings[0]))
    train, test = split == "train", split == "test"
    folds = list(StratifiedKFold(N_FOLDS, shuffle=True, random_state=0).split(X[train], y[train]))
    return Data(X[train], y[train], X[test], y[test], folds)


def run_real(path: str, layers: Sequence[int], target: str, repeats: int, *, memory: bool) -> None:
    """Logistic probes on the states of a cache with a column ``split``."""
    print_header(["model", "layer", "n", "d"], "log-loss")
    with open_cache(path) as cache:
        for layer in layers:
            data = real_states(cache, layer, target)
            outcomes = measure(LOGISTIC, data, repeats, memory=memory)
            print_row([cache.model, layer, len(data.X), data.X.shape[1]], outcomes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2,000 rows instead of 8,000")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--probe", default="logistic,ridge", help="which tables, by comma")
    parser.add_argument("--dims", help="dimensions by comma, instead of the table's own")
    parser.add_argument("--memory", action="store_true", help="also the peak memory, by one more run of each")
    parser.add_argument("--cache", help="a cache with a column split, instead of synthetic rows")
    parser.add_argument("--target", default="label", help="its label column")
    parser.add_argument("--layers", default="0", help="its layers, by comma")
    arguments = parser.parse_args()
    n = 2000 if arguments.quick else 8000
    dims = [int(d) for d in arguments.dims.split(",")] if arguments.dims else None
    with threadpool_limits(1):
        kernels = {p["architecture"] for p in threadpool_info() if p["user_api"] == "blas"}
        print(f"{N_FOLDS} folds, {len(C_GRID)} C, {len(ALPHA_PER_DIMENSION)} alpha; 1 thread; kernels {kernels}")
        if arguments.cache:
            layers = [int(layer) for layer in arguments.layers.split(",")]
            run_real(arguments.cache, layers, arguments.target, arguments.repeats, memory=arguments.memory)
            return
        if "logistic" in arguments.probe:
            run_logistic(n, dims or [384, 576, 1024], arguments.repeats, memory=arguments.memory)
        if "ridge" in arguments.probe:
            run_ridge(n, dims or [384, 576, 1000, 4096], arguments.repeats, memory=arguments.memory)
        if "mlp" in arguments.probe:
            run_mlp(N_FEW, dims or [16, 384], arguments.repeats, memory=arguments.memory)


if __name__ == "__main__":
    main()
