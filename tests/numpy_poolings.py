"""The poolings in plain NumPy, of one text's states (n_tokens, d_model)."""

NUMPY_POOLINGS = {
    "mean": lambda h: h.mean(0),
    "last": lambda h: h[-1],
    "first": lambda h: h[0],
    "max": lambda h: h.max(0),
    "mean_skip_first": lambda h: h[1:].mean(0) if len(h) > 1 else h[0],
}
