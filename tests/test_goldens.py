"""What every kind of task prints and saves, frozen: tables, cards, specs and fingerprints on the model of tests/old.

A change of structure changes nothing here. After a change that is meant to, ``python -m tests.test_goldens`` writes
them anew, and the difference belongs into the commit's message.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from probekit import open_cache
from probekit.cli import run
from tests.tiny import WORDS

HERE = Path(__file__).parent
GOLDENS = HERE / "goldens"
N = 80

CACHES = {
    "texts": "extract model texts.csv --out texts.h5",
    "others": "extract model others.csv --out others.h5",
    "prompted": "extract model texts.csv --prompt very~{text} --pool-over text --out prompted.h5",
    "words": "extract model words.jsonl --tokens --out words.h5",
    "pieces": "extract model texts.csv --tokens --stride 1 --max-length 7 --out pieces.h5",
    "spans": "extract model spans.jsonl --pool-over span --out spans.h5",
    "untrained": "extract model texts.csv --random-seed 3 --out untrained.h5",
}
PROBES = {
    "classes": "probe texts.h5 --target label --per-class",
    "numbers": "probe texts.h5 --target score --group doc --seeds 2",
    "labels": "probe texts.h5 --target moods --per-class",
    "missing": "probe texts.h5 --target gaps --drop-rare 3",
    "tags": "probe words.h5 --target pos --per-class",
    "entities": "probe words.h5 --target ner --viterbi --per-class",
    "spans": "probe spans.h5 --target type",
    "shots": "probe texts.h5 --target label,score --shots 1,2,4 --draws 3",
    "mteb": "probe texts.h5 --target label --protocol mteb",
    "transfer": "probe texts.h5 --target label --transfer others.h5",
    "controls": "probe texts.h5 --target label --controls --random-cache untrained.h5",
    "several": "probe texts.h5 prompted.h5 --target label,score",
    "probes": "probe texts.h5 --target label --layers 1 --probe lda,mass-mean,mass-mean-iid,knn,sparse-logistic",
}


def write_data(folder: Path) -> None:
    rng = np.random.default_rng(0)

    def texts(n):
        return [" ".join(rng.choice(WORDS, size=int(rng.integers(2, 9)))) for _ in range(n)]

    for name in ("texts", "others"):
        read = texts(N)
        good = np.array([text.count("good") + text.count("fine") for text in read])
        label = np.where(good + rng.integers(0, 2, N) > 0, "pos", "neg")
        frame = pd.DataFrame(
            {
                "text": read,
                "label": label,
                "score": np.round(good + rng.standard_normal(N), 3),
                "doc": [f"d{i // 3}" for i in range(N)],
                "moods": [json.dumps([m for m in ("film", "bad", "actor") if m in text]) for text in read],
                "gaps": np.where(np.arange(N) % 4 == 0, "", np.where(np.arange(N) == 5, "rare", label)),
            }
        )
        frame.to_csv(folder / f"{name}.csv", index=False)
    with (folder / "words.jsonl").open("w") as file:
        for _ in range(N):
            words = list(rng.choice(WORDS, size=int(rng.integers(3, 8))))
            pos = ["noun" if w in ("film", "plot", "actor") else "adj" if len(w) > 3 else "det" for w in words]
            ner = ["O"] * len(words)
            for i, word in enumerate(words):
                if word == "film":
                    ner[i] = "B-work"
                    if i + 1 < len(words) and words[i + 1] == "plot":
                        ner[i + 1] = "I-work"
            file.write(json.dumps({"tokens": words, "pos": pos, "ner": ner}) + "\n")
    with (folder / "spans.jsonl").open("w") as file:
        for i in range(N):
            word = WORDS[i % len(WORDS)]
            text = f"the {word} very"
            file.write(json.dumps({"text": text, "start": 4, "end": 4 + len(word), "type": "ab"[i % 2]}) + "\n")


def make(folder: Path) -> dict[str, str]:
    """All that is frozen, by the name of its file in ``goldens``."""
    folder = folder / "frozen"  # a model is called by its folder's folder
    folder.mkdir()
    os.chdir(folder)
    shutil.copytree(HERE / "old" / "model", "model")
    write_data(folder)
    found = {}
    for name, command in CACHES.items():
        words = [word.replace("~", " ") for word in command.split()]
        assert run([*words, "--dtype", "float32", "--threads", "1"]) == 0, command
        with open_cache(f"{name}.h5") as cache:
            found[f"{name}.spec.json"] = _json({"fingerprint": cache.fingerprint, "spec": cache.spec})
    for name, command in PROBES.items():
        assert run([*command.split(), "--out", f"{name}.csv", "--save-probes", f"{name}_heads", "--jobs", "1"]) == 0
        for table in sorted(Path().glob(f"{name}*.csv")):
            if table.name not in ("texts.csv", "others.csv"):
                found[table.name] = table.read_text()
        for card in sorted(Path(f"{name}_heads").glob("*.json")):
            whole = json.loads(card.read_text())
            found[f"{name}.{card.name}"] = _json({k: v for k, v in whole.items() if k not in ("sha256", "scores")})
    return found


def _json(value) -> str:
    return json.dumps(value, indent=1) + "\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    before = Path.cwd()
    try:
        yield make(tmp_path_factory.mktemp("goldens"))
    finally:
        os.chdir(before)


def test_nothing_is_missing_and_nothing_new(made):
    assert sorted(made) == sorted(path.name for path in GOLDENS.iterdir())


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDENS.glob("*.json")))
def test_specs_and_cards_are_the_same(made, name):
    assert made[name] == (GOLDENS / name).read_text()


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDENS.glob("*.csv")))
def test_tables_are_the_same(made, name, tmp_path):
    (tmp_path / name).write_text(made[name])
    was, now = pd.read_csv(GOLDENS / name), pd.read_csv(tmp_path / name)
    # (The last digits are the processor's.)
    pd.testing.assert_frame_equal(now, was, rtol=1e-3, atol=1e-4)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        everything = make(Path(folder))
        os.chdir("/")
    shutil.rmtree(GOLDENS, ignore_errors=True)
    GOLDENS.mkdir()
    for file_name, text in everything.items():
        (GOLDENS / file_name).write_text(text)
    sys.stderr.write(f"{len(everything)} files in {GOLDENS}\n")
