"""Parts of speech of words that only their neighbours tell apart, written as CoNLL-U and read off a real model."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from probekit import ProbekitWarning, extract, probe_layers
from tests.packaged import minilm

VERB_OR_NOUN = ["play", "walk", "watch", "plant", "park", "dream", "work", "help", "call", "fight", "run", "rest"]
PLACES, NAMES = ["garden", "city", "school", "river", "forest"], ["Anna", "Ben", "Carla", "David"]
ADJECTIVES, ADVERBS = ["long", "quiet", "famous", "strange", "good"], ["often", "slowly", "together", "never"]
TEMPLATES = [
    [("the", "DET"), (ADJECTIVES, "ADJ"), (VERB_OR_NOUN, "NOUN"), ("was", "AUX"), (ADJECTIVES, "ADJ"), (".", "PUNCT")],
    [("they", "PRON"), (VERB_OR_NOUN, "VERB"), (ADVERBS, "ADV"), ("in", "ADP"), ("the", "DET"), (PLACES, "NOUN")],
    [(NAMES, "PROPN"), ("will", "AUX"), (VERB_OR_NOUN, "VERB"), ("with", "ADP"), (NAMES, "PROPN"), (".", "PUNCT")],
    [("a", "DET"), (VERB_OR_NOUN, "NOUN"), ("in", "ADP"), ("the", "DET"), (PLACES, "NOUN"), ("!", "PUNCT")],
    [("to", "PART"), (VERB_OR_NOUN, "VERB"), ("is", "AUX"), (ADJECTIVES, "ADJ"), (",", "PUNCT"), (NAMES, "PROPN")],
]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """300 sentences; every word type is in training, so that a lookup fails on nothing but the ambiguous ones."""
    folder = tmp_path_factory.mktemp("pos")
    rng = np.random.default_rng(0)
    lines = []
    for i in range(300):
        lines.append(f"# sent_id = s{i}")
        for k, (word, tag) in enumerate(TEMPLATES[i % len(TEMPLATES)], 1):
            form = word if isinstance(word, str) else str(rng.choice(word))
            lines.append("\t".join([str(k), form, form.lower(), tag, *["_"] * 6]))
        lines.append("")
    (folder / "pos.conllu").write_text("\n".join(lines) + "\n")
    extract(minilm(), folder / "pos.conllu", out=folder / "pos.h5", tokens=True, dtype="float32").close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProbekitWarning)  # some sentences come out alike
        found = probe_layers(folder / "pos.h5", "upos")
    return found.set_index("layer")


def test_words_alone_do_not_tell(table):
    assert 0.8 < table["text_baseline"].iloc[0] < 0.95
    assert table["score"][0] == pytest.approx(table["text_baseline"][0], abs=0.05)


def test_the_first_blocks_do(table):
    assert (table["score"][[2, 3, 4]] > table["text_baseline"][2:5] + 0.04).all()
    assert 1 <= table.index[table["selected"]][0] <= 4
