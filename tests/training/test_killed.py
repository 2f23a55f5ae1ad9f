"""A training that was killed goes on where it was and ends in the bytes of one that was not."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal

import pytest

from probekit import train
from probekit.errors import SpecError
from probekit.spec import Silent
from probekit.training import saved_heads
from tests.training.trained import one_line

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["probekit.training.run", "peft", "transformers.models.bert.modeling_bert"])

OPTIONS = {
    "frozen": {"head": "mlp", "layer": 1, "epochs": 4, "batch_size": 12, "head_lr": 0.02, "seeds": 2},
    "lora": {"layer": 2, "epochs": 3, "batch_size": 12, "backbone": "lora", "lora_rank": 2, "lora_dropout": 0.2},
    "full": {"layer": 2, "epochs": 3, "batch_size": 12, "backbone": "full"},
}
STEPS = 4
"""Of an epoch: 48 rows."""

KILLED = [
    ("frozen", (1, 2)),  # before the first epoch has ended
    pytest.param("frozen", (1, STEPS + 1), marks=pytest.mark.slow),
    pytest.param("frozen", (2, 3 * STEPS), marks=pytest.mark.slow),  # the other seed, at the end of an epoch
    ("frozen", "saving"),
    ("lora", (1, STEPS + 2)),
    pytest.param("lora", (1, 3 * STEPS), marks=pytest.mark.slow),
    pytest.param("full", (1, 2 * STEPS + 1), marks=pytest.mark.slow),
]


class Steps(Silent):
    """Counts the steps of trainings; ``at``: ends the process at a step of one of them, as nothing could prevent."""

    def __init__(self, at=None):
        self.at, self.n, self.of, self.training = at, 0, 0, False

    def stage(self, name, **_options):
        self.training = name.startswith("training")
        self.of += self.training

    def advance(self, done):
        self.n += self.training
        if self.training and (self.of, done) == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def work(cache, model, out, options, at):
    if at == "saving":
        saved_heads.sync = lambda _folder: os.kill(os.getpid(), signal.SIGKILL)  # when all is written but the name
    train(cache, "label", out=out, model=model, threads=1, listener=Steps(at), **options)


def killed(given, out, options, at):
    process = PROCESSES.Process(target=work, args=(given.cache.path, given.model, out, options, at))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


def bytes_of(folder):
    names = ("heads.safetensors", "backbone.safetensors", "adapter_model.safetensors", "adapter_config.json")
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.name in names}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, given):
    found = {}

    def run(kind):
        if kind not in found:
            out, steps = tmp_path_factory.mktemp("whole") / kind, Steps()
            train(given.cache, "label", out=out, model=given.model, threads=1, listener=steps, **OPTIONS[kind])
            found[kind] = bytes_of(out), steps.n
        return found[kind]

    return run


@pytest.mark.parametrize(("kind", "at"), KILLED)
def test_a_killed_training_goes_on_to_the_same_bytes(given, tmp_path, undisturbed, kind, at):
    out, (expected, n_steps) = tmp_path / "heads", undisturbed(kind)
    killed(given, out, OPTIONS[kind], at)
    assert not out.exists()
    assert list((tmp_path / "heads.partial" / "cache0").glob("*.safetensors"))
    steps = Steps()
    train(given.cache, "label", out=out, model=given.model, threads=1, listener=steps, **OPTIONS[kind])
    assert bytes_of(out) == expected
    assert steps.n < n_steps or at == (1, 2), "epochs that were done are not done again"
    assert [p.name for p in tmp_path.iterdir() if p.name != "heads" and not p.name.endswith(".new")] == []


def test_a_state_of_other_options_or_another_cache_is_refused(given, halves, tmp_path):
    out, options = tmp_path / "heads", OPTIONS["frozen"]
    killed(given, out, options, (1, STEPS + 1))
    before = sorted((p.name, p.read_bytes()) for p in (tmp_path / "heads.partial" / "cache0").iterdir())
    for cache, other in ((given.cache, {"head_lr": 0.5}), (halves.cache, {}), (given.cache, {"epochs": 9})):
        with pytest.raises(SpecError, match="holds a training that was broken off") as error:
            train(cache, "label", out=out, model=given.model, threads=1, **{**options, **other})
        assert one_line(error)
    assert sorted((p.name, p.read_bytes()) for p in (tmp_path / "heads.partial" / "cache0").iterdir()) == before


def test_a_state_that_is_damaged_is_refused(given, tmp_path):
    out, options = tmp_path / "heads", OPTIONS["frozen"]
    killed(given, out, options, (1, STEPS + 1))
    (state,) = (tmp_path / "heads.partial" / "cache0").glob("*.safetensors")
    state.write_bytes(state.read_bytes()[:-9])
    with pytest.raises(SpecError, match="must be the state of this training; remove it to begin anew") as error:
        train(given.cache, "label", out=out, model=given.model, threads=1, **options)
    assert one_line(error)


@pytest.mark.parametrize("text", ["{", "[]", "null", "\udcff"])
def test_a_note_that_is_damaged_is_refused(given, tmp_path, text):
    folder = tmp_path / "heads.partial" / "cache0"
    folder.mkdir(parents=True)
    (folder / "training.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    (folder / "seed0-head0.safetensors").write_bytes(b"a state")
    with pytest.raises(SpecError) as error:
        train(given.cache, "label", out=tmp_path / "heads", model=given.model, threads=1, **OPTIONS["frozen"])
    assert one_line(error)


def test_the_note_says_what_was_asked(given, tmp_path):
    killed(given, tmp_path / "heads", OPTIONS["frozen"], (1, STEPS + 1))
    note = json.loads((tmp_path / "heads.partial" / "cache0" / "training.json").read_text())
    assert note["asked"]["options"]["heads"][0]["head"] == "mlp"
    assert note["asked"]["cache"] == given.cache.fingerprint
