"""What a head computes: linear, mlp, attention over tokens, a mix of layers; each begins by standardising its input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm


@dataclass(frozen=True)
class Shape:
    """What a head is, apart from its weights. ``kind``: a key of ``HEADS``; ``n_answers``: logits of an input.

    ``width``, ``dropout``: of the hidden layer of an mlp (dropout also of what is read by others). ``n_layers``: whose
    states a mix reads; 1 for the others.
    """

    kind: str
    d_model: int
    n_answers: int
    width: int = 128
    dropout: float = 0.1
    n_layers: int = 1


@dataclass(frozen=True)
class Ragged:
    """Token states of some texts: ``states`` (total_tokens, d_model), text after text; ``lengths`` (n_texts,) int64."""

    states: Tensor
    lengths: Tensor


Read = Tensor | Ragged
"""What a head reads of n rows: (n, d_model); (n, n_layers, d_model) for a mix; their tokens for attention."""


class Standardise(nn.Module):
    """Subtract a mean and divide by a scale that were measured once, on training rows; neither is trained.

    Shapes (d_model,), or (n_layers, d_model) for a mix.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def forward(self, states: Tensor) -> Tensor:
        """The same shape."""
        return (states - self.mean) / self.scale

    @torch.no_grad()
    def measure(self, parts: Sequence[Tensor]) -> None:
        """Take mean and standard deviation over the rows of all ``parts``, (n, ...) each; a constant has scale 1."""
        n = sum(len(part) for part in parts)
        mean = torch.stack([part.double().sum(0) for part in parts]).sum(0) / n
        variance = torch.stack([((part.double() - mean) ** 2).sum(0) for part in parts]).sum(0) / n
        scale = variance.sqrt()
        # As scikit-learn: what differs by rounding alone is constant.
        constant = variance <= n * torch.finfo(torch.float64).eps * variance + (n * mean * 2.3e-16) ** 2
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(constant, torch.ones_like(scale), scale))


class Linear(nn.Module):
    """Standardised states times a matrix: the probe, as a torch module."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.standardise = Standardise(shape.d_model)
        self.output = zero_linear(shape.d_model, shape.n_answers)

    def features(self, read: Read) -> Tensor:
        """(n, d_model) before standardising."""
        return dense(read)

    def forward(self, read: Read) -> Tensor:
        """(n, n_answers)."""
        out: Tensor = self.output(self.standardise(self.features(read)))
        return out


class Mlp(nn.Module):
    """One hidden layer with ReLU and dropout."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.standardise = Standardise(shape.d_model)
        self.hidden = nn.Linear(shape.d_model, shape.width)
        self.dropout = nn.Dropout(shape.dropout)
        self.output = nn.Linear(shape.width, shape.n_answers)

    def features(self, read: Read) -> Tensor:
        """(n, d_model) before standardising."""
        return dense(read)

    def forward(self, read: Read) -> Tensor:
        """(n, n_answers)."""
        hidden = torch.relu(self.hidden(self.standardise(self.features(read))))
        out: Tensor = self.output(self.dropout(hidden))
        return out


class Attention(nn.Module):
    """A learnt query over the tokens of a text, then a linear layer.

    Every token is layer-normed first, as models do before they use their own states: the first token of a decoder can
    be a hundred times as large as the others, and would be all that the query sees. A query of zeros, where training
    begins, is the mean over tokens.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.standardise = Standardise(shape.d_model)
        self.query = nn.Parameter(torch.zeros(shape.d_model))
        self.dropout = nn.Dropout(shape.dropout)
        self.output = zero_linear(shape.d_model, shape.n_answers)

    def features(self, read: Read) -> Tensor:
        """(total_tokens, d_model) before standardising."""
        states = tokens(read).states
        return layer_norm(states, states.shape[-1:])

    def weights(self, read: Read) -> Tensor:
        """(total_tokens,) how much the query looks at each token; 1 in all for each text."""
        return self._weights(self.standardise(self.features(read)), tokens(read).lengths)

    def _weights(self, states: Tensor, lengths: Tensor) -> Tensor:
        logits = states @ self.query / states.shape[-1] ** 0.5
        text = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
        largest = torch.segment_reduce(logits.detach(), "max", lengths=lengths)
        raised = (logits - largest[text]).exp()
        weights: Tensor = raised / raised.new_zeros(len(lengths)).index_add(0, text, raised)[text]
        return weights

    def forward(self, read: Read) -> Tensor:
        """(n, n_answers)."""
        states, lengths = self.standardise(self.features(read)), tokens(read).lengths
        text = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
        weighted = states * self._weights(states, lengths)[:, None]
        pooled = states.new_zeros(len(lengths), states.shape[1]).index_add(0, text, weighted)
        out: Tensor = self.output(self.dropout(pooled))
        return out


class Mix(nn.Module):
    """A learnt weighting of all layers, each standardised, then a linear layer (Tenney et al. 2019)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.standardise = Standardise(shape.n_layers, shape.d_model)
        self.mixture = nn.Parameter(torch.zeros(shape.n_layers))
        self.dropout = nn.Dropout(shape.dropout)
        self.output = zero_linear(shape.d_model, shape.n_answers)

    def features(self, read: Read) -> Tensor:
        """(n, n_layers, d_model) before standardising."""
        return dense(read)

    def shares(self) -> Tensor:
        """(n_layers,) how much each layer counts; 1 in all."""
        return torch.softmax(self.mixture, 0)

    def forward(self, read: Read) -> Tensor:
        """(n, n_answers)."""
        mixed = torch.einsum("l,nld->nd", self.shares(), self.standardise(self.features(read)))
        out: Tensor = self.output(self.dropout(mixed))
        return out


Head = Linear | Mlp | Attention | Mix

HEADS: dict[str, Callable[[Shape], Head]] = {"linear": Linear, "mlp": Mlp, "attention": Attention, "mix": Mix}


def make_head(shape: Shape, *, seed: int) -> Head:
    """A new head; the same seed gives the same weights, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return HEADS[shape.kind](shape)


def zero_linear(d: int, n_answers: int) -> nn.Linear:
    """A linear layer of zeros: convex fits begin where their penalty is least, and need no luck."""
    layer = nn.Linear(d, n_answers)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def dense(read: Read) -> Tensor:
    """What is read as one tensor. Raises TypeError for tokens."""
    if not isinstance(read, Tensor):
        raise TypeError("this head reads pooled states, not tokens")
    return read


def tokens(read: Read) -> Ragged:
    """What is read as tokens. Raises TypeError for pooled states."""
    if not isinstance(read, Ragged):
        raise TypeError("this head reads the states of tokens, not pooled ones")
    return read


def penalised(head: Head) -> list[Tensor]:
    """The weights whose squares a penalty counts: all matrices, no bias, as scikit-learn has it.

    A query counts as it weighs, divided by the root of its length: counted whole it could not leave the mean.
    """
    named = head.named_parameters()
    return [p / p.numel() ** 0.5 if name == "query" else p for name, p in named if p.ndim > 1 or name == "query"]
