"""How metrics are called on a terminal and in a picture."""

METRIC_LABELS = {"accuracy": "accuracy", "r2": "R²"}
