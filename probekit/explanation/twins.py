"""Fitted scikit-learn estimators as torch modules that compute the same, so that gradients can go through them.

What comes out is not a probability but what stands before it, in one form for all kinds: log-odds of every class
(log p / (1 - p)), log-odds of every label, or the number itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import NearestCentroid
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from probekit.errors import SpecError
from probekit.heads.estimators import HeadClassifier, HeadRegressor
from probekit.heads.losses import class_logits
from probekit.heads.modules import HEADS, Read, Shape

CERTAIN = 30.0
"""Log-odds of an answer that is always given."""


class Affine(nn.Module):
    """x W + b in float64, for W (d, n_out)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: NDArray[Any], bias: NDArray[Any]) -> None:
        super().__init__()
        self.register_buffer("weight", torch.from_numpy(np.array(weight, dtype=np.float64)))
        self.register_buffer("bias", torch.from_numpy(np.array(bias, dtype=np.float64)))

    def forward(self, x: Tensor) -> Tensor:
        """(n, n_out)."""
        return x.to(self.weight) @ self.weight + self.bias


class Scaled(nn.Module):
    """(x - mean) / scale in float64."""

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: NDArray[Any] | float, scale: NDArray[Any] | float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(np.array(mean, dtype=np.float64)))
        self.register_buffer("scale", torch.from_numpy(np.array(scale, dtype=np.float64)))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return (x.to(self.mean) - self.mean) / self.scale


class ClassOdds(nn.Module):
    """Logits (n, n_classes), or (n, 1) of two classes, as the log-odds of every class, (n, n_classes).

    Of two classes they are the logit and its negative. Unlike a probability's, their gradient does not vanish where
    the answer is clear.
    """

    def forward(self, logits: Tensor) -> Tensor:
        """See above."""
        logits = class_logits(logits)
        n = logits.shape[1]
        if n == 1:  # one class: nothing stands against it
            return torch.full_like(logits, CERTAIN)
        others = ~torch.eye(n, dtype=torch.bool, device=logits.device)
        against = torch.stack([torch.logsumexp(logits[:, others[k]], 1) for k in range(n)], 1)
        return logits - against


class Centroids(nn.Module):
    """Minus the squared distance to each class mean, (n, n_classes), by ``scale``d features; and the log of priors.

    It is what scikit-learn makes probabilities of.
    """

    means: Tensor
    scale: Tensor
    prior: Tensor

    def __init__(self, means: NDArray[Any], scale: NDArray[Any], prior: NDArray[Any]) -> None:
        super().__init__()
        self.register_buffer("scale", torch.from_numpy(np.where(scale != 0, scale, 1.0).astype(np.float64)))
        self.register_buffer("means", torch.from_numpy(np.array(means, dtype=np.float64)))
        self.register_buffer("prior", torch.from_numpy(np.log(prior)))

    def forward(self, x: Tensor) -> Tensor:
        """See above."""
        away = (x.to(self.means)[:, None] - self.means) / self.scale
        return 2 * self.prior - (away**2).sum(-1)


class Columns(nn.Module):
    """Some of the columns of (n, d)."""

    kept: Tensor

    def __init__(self, kept: NDArray[np.int64]) -> None:
        super().__init__()
        self.register_buffer("kept", torch.from_numpy(kept))

    def forward(self, x: Tensor) -> Tensor:
        """(n, n_kept)."""
        return x[:, self.kept]


class Constant(nn.Module):
    """The same answer for every row, with no gradient but zero."""

    answer: Tensor

    def __init__(self, answer: NDArray[Any]) -> None:
        super().__init__()
        self.register_buffer("answer", torch.from_numpy(np.array(answer, dtype=np.float64)))

    def forward(self, x: Read) -> Tensor:
        """(n, n_out)."""
        n, zero = (len(x), x.sum() * 0) if isinstance(x, Tensor) else (len(x.lengths), x.states.sum() * 0)
        return self.answer.expand(n, -1) + zero.double()


class Side(nn.Module):
    """Several modules on the same rows, their outputs side by side."""

    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Read) -> Tensor:
        """(n, total)."""
        return torch.cat([part(x) for part in self.parts], 1)


class InDouble(nn.Module):
    """A trained head in float32, its logits in float64 and in their own units."""

    def __init__(self, head: nn.Module, mean: NDArray[Any] | float = 0.0, scale: NDArray[Any] | float = 1.0) -> None:
        super().__init__()
        self.head, self.units = head, Scaled(-np.asarray(mean) / scale, 1 / np.asarray(scale))

    def forward(self, x: Read) -> Tensor:
        """(n, n_out)."""
        out: Tensor = self.units(self.head(x).double())
        return out


def torch_twin(estimator: Any, source: str) -> nn.Module:
    """A module for states (n, d) (or the tokens of n texts) that gives float64 (n, n_answers).

    Log-odds for each of ``classes_``, or for each label of a ``MultiOutputClassifier``; numbers as they are predicted.

    Raises SpecError, which begins with ``source``, for a kind of estimator that has no gradient, or that is not known.
    """
    if isinstance(estimator, MultiOutputClassifier):
        return Side([_label(one, source) for one in estimator.estimators_])
    module, numbers = _module(estimator, source)
    return module if numbers else nn.Sequential(module, ClassOdds())


def has_twin(estimator: Any) -> bool:
    """Whether ``torch_twin`` knows the estimator."""
    try:
        torch_twin(estimator, "")
    except SpecError:
        return False
    return True


def _label(estimator: Any, source: str) -> nn.Module:
    """Log-odds of one label, (n, 1)."""
    if isinstance(estimator, DummyClassifier):
        return Constant(np.array([CERTAIN if estimator.constant else -CERTAIN]))
    module, _ = _module(estimator, source)
    return nn.Sequential(module, ClassOdds(), Affine(np.array([[0.0], [1.0]]), np.zeros(1)))


def _module(estimator: Any, source: str) -> tuple[nn.Module, bool]:
    """Logits, and False; or numbers, and True."""
    steps = [step for _, step in estimator.steps] if isinstance(estimator, Pipeline) else [estimator]
    modules: list[nn.Module] = []
    numbers = False
    for step in steps:
        known = next((kind for kind in TWINS if type(step) is kind), None)
        if known is None:
            names = ", ".join(sorted(kind.__name__ for kind in TWINS))
            raise SpecError(
                source, f"has a gradient for {names} alone; method occlusion needs none", type(step).__name__
            )
        module, numbers = TWINS[known](step)
        modules.append(module)
    return nn.Sequential(*modules) if len(modules) > 1 else modules[0], numbers


Twin = Callable[[Any], tuple[nn.Module, bool]]


def _scaler(step: StandardScaler) -> tuple[nn.Module, bool]:
    mean = 0.0 if step.mean_ is None else step.mean_
    return Scaled(mean, 1.0 if step.scale_ is None else step.scale_), False


def _rotated(step: PCA) -> tuple[nn.Module, bool]:
    scale = np.sqrt(step.explained_variance_) if step.whiten else np.ones(len(step.components_))
    rotation = step.components_.T / scale
    return Affine(rotation, -step.mean_ @ rotation), False


def _linear_classifier(step: Any) -> tuple[nn.Module, bool]:
    return Affine(np.atleast_2d(step.coef_).T, step.intercept_), False


def _linear_regressor(step: Ridge) -> tuple[nn.Module, bool]:
    return Affine(np.atleast_2d(step.coef_).T, np.atleast_1d(step.intercept_)), True


def _centroid(step: NearestCentroid) -> tuple[nn.Module, bool]:
    return Centroids(step.centroids_, step.within_class_std_dev_, step.class_prior_), False


def _selected(step: SelectKBest | VarianceThreshold) -> tuple[nn.Module, bool]:
    return Columns(step.get_support(indices=True)), False


def _layers(step: MLPClassifier | MLPRegressor) -> nn.Module:
    """The network before its last activation."""
    parts: list[nn.Module] = []
    for weight, bias in zip(step.coefs_, step.intercepts_, strict=True):
        parts += [Affine(weight, bias), ACTIVATIONS[step.activation]()]
    return nn.Sequential(*parts[:-1])


def _mlp_classifier(step: MLPClassifier) -> tuple[nn.Module, bool]:
    return _layers(step), False


def _mlp_regressor(step: MLPRegressor) -> tuple[nn.Module, bool]:
    return _layers(step), True


def _transformed(step: TransformedTargetRegressor) -> tuple[nn.Module, bool]:
    inner, _ = TWINS[type(step.regressor_)](step.regressor_)
    scaler = step.transformer_
    return nn.Sequential(inner, Scaled(-scaler.mean_ / scaler.scale_, 1 / scaler.scale_)), True


def _dummy(step: DummyClassifier) -> tuple[nn.Module, bool]:
    return Constant(np.log(np.maximum(step.class_prior_, np.exp(-CERTAIN)))), False


def _trained(step: HeadClassifier | HeadRegressor) -> nn.Module:
    output = step.weights_["output.weight"]
    shape = Shape(step.kind, step.n_features_in_, len(output), step.width, step.dropout)
    head = HEADS[shape.kind](shape).eval().requires_grad_(False)
    head.load_state_dict({name: torch.tensor(value) for name, value in step.weights_.items()})
    return head


def _head_classifier(step: HeadClassifier) -> tuple[nn.Module, bool]:
    return InDouble(_trained(step)), False


def _head_regressor(step: HeadRegressor) -> tuple[nn.Module, bool]:
    return InDouble(_trained(step), step.mean_, step.scale_), True


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "logistic": nn.Sigmoid,
    "identity": nn.Identity,
}

TWINS: dict[type, Twin] = {
    StandardScaler: _scaler,
    VarianceThreshold: _selected,
    SelectKBest: _selected,
    PCA: _rotated,
    LogisticRegression: _linear_classifier,
    LinearDiscriminantAnalysis: _linear_classifier,
    NearestCentroid: _centroid,
    Ridge: _linear_regressor,
    MLPClassifier: _mlp_classifier,
    MLPRegressor: _mlp_regressor,
    TransformedTargetRegressor: _transformed,
    DummyClassifier: _dummy,
    HeadClassifier: _head_classifier,
    HeadRegressor: _head_regressor,
}
