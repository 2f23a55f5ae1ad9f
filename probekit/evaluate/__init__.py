"""From the states of every layer to the layer table: splits, fits, baselines and intervals put together."""
