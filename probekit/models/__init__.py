"""Finding, loading and running the frozen model; the only place that knows transformers."""

from probekit.models.source import ModelSource, locate

__all__ = ["ModelSource", "locate"]
