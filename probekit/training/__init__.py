"""Heads trained on a cache: on its states, or through the backbone; saved as a folder that predicts."""
