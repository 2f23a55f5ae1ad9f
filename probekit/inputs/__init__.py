"""Labelled texts from local files, from datasets of the Hugging Face hub, and from memory."""
