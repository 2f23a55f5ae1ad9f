"""Models named as on the hub, offline: in a cache, not in a cache, and each in a process of its own.

A process of its own, because huggingface_hub reads its settings at import, and because what this process has imported
already must not hide what ``locate`` forgot to import.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from probekit.errors import ModelError
from probekit.models import locate
from tests.tiny import save_tiny_bert

COMMITS = {"main": "a" * 40, "old": "b" * 40}
LOCATE = """
import json, sys
from probekit.errors import ModelError
from probekit.models import locate
name, revision, load = json.loads(sys.argv[1])
try:
    source = locate(name, revision=revision)
except ModelError as error:
    sys.exit(f"ModelError: {error}")
print(source.name, source.revision, source.tokenizer_hash, source.on_hub)
if load:
    from probekit.models.loading import load_backbone
    from probekit.readspec import ReadSpec, RunOptions
    from probekit.models.tokens import load_tokenizer
    backbone = load_backbone(source, ReadSpec(dtype="float32"), RunOptions("cpu", 1))
    print(backbone.stack.n_layers, len(load_tokenizer(source)))
"""


@pytest.fixture(scope="module")
def hub_cache(tmp_path_factory):
    """The layout of a hub cache: refs name commits, snapshots hold their files."""
    cache = tmp_path_factory.mktemp("hub")
    repository = cache / "models--org--tiny"
    (repository / "refs").mkdir(parents=True)
    for i, (ref, commit) in enumerate(COMMITS.items()):
        save_tiny_bert(repository / "snapshots" / commit, layers=2 + i)
        (repository / "refs" / ref).write_text(commit)
    return cache


def located(cache, name, *, revision=None, load=False, **environment):
    settings = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOCATE, json.dumps([name, revision, load])],
        env=os.environ | settings,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("revision", "n_layers"), [(None, 2), pytest.param("old", 3, marks=pytest.mark.slow), (COMMITS["old"], 3)]
)
def test_a_cached_model_is_pinned_and_loaded_without_network(hub_cache, revision, n_layers):
    commit = COMMITS["old" if revision else "main"]
    done = located(hub_cache, "org/tiny", revision=revision, load=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"org/tiny {commit} {commit} True", f"{n_layers} 14"]


@pytest.mark.parametrize(
    ("name", "revision", "environment", "message"),
    [
        ("org/none", None, {}, "model org/none: no such local path, not in the hub cache"),
        ("org/tiny", "new", {}, "model org/tiny at revision new: no such local path, not in the hub cache"),
        ("bad name!!", None, {}, "model bad name!!: must be a hub id"),
        ("org/none", None, {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}, "the hub can't be reached"),
    ],
    ids=["not cached", "revision not cached", "no id", "no network"],
)
def test_what_is_not_there_is_one_clear_error(hub_cache, name, revision, environment, message):
    done = located(hub_cache, name, revision=revision, **environment)
    assert done.returncode == 1
    assert done.stderr.startswith("ModelError: "), done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_cached_model_needs_no_network_even_where_it_is_not_switched_off(hub_cache):
    done = located(hub_cache, "org/tiny", HF_HUB_OFFLINE="0", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.stdout.startswith(f"org/tiny {COMMITS['main']}"), done.stderr


def test_a_local_model_is_pinned_by_its_contents(tmp_path):
    first = locate(save_tiny_bert(tmp_path / "a" / "tiny"))
    assert first.revision.startswith("sha256:")
    shutil.copytree(tmp_path / "a" / "tiny", tmp_path / "elsewhere")
    moved = locate(tmp_path / "elsewhere")
    assert (moved.revision, moved.tokenizer_hash) == (first.revision, first.tokenizer_hash)
    other = locate(save_tiny_bert(tmp_path / "b" / "tiny", seed=1))
    assert other.revision != first.revision
    assert other.tokenizer_hash == first.tokenizer_hash


def test_local_mistakes(tmp_path):
    (tmp_path / "notes.txt").write_text("no model")
    for name, message in (
        (tmp_path, "no config.json"),
        (tmp_path / "notes.txt", r"got a \.txt file"),
        (tmp_path / "none", "there is no such file or folder"),
        (tmp_path / "none.gguf", "there is no such file or folder"),
    ):
        with pytest.raises(ModelError, match=message):
            locate(name)
    with pytest.raises(ModelError, match="--revision: goes with a hub model"):
        locate(tmp_path, revision="main")
