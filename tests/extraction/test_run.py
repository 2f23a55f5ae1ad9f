"""The run: memory that runs out, interruptions, and rows in their places."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from probekit.errors import OutOfMemoryError
from probekit.extraction.plan import make_plan
from probekit.extraction.run import ForwardPlan, run
from probekit.models.backbone import prepare
from tests.models.families import build, reference_states

ROWS = [[5 + (3 * i + j) % 50 for j in range(1 + (7 * i) % 13)] for i in range(23)]
LAYERS = (0, 2, 3)


class Kept:
    """A sink that keeps windows in memory."""

    def __init__(self, plan, pending=None):
        self.plan = plan
        self.todo = list(range(len(plan.windows))) if pending is None else pending
        self.windows = {}

    def pending(self):
        return self.todo

    def write_window(self, states):
        self.windows[states.index] = states

    def rows(self, pooling, layer):
        return np.concatenate([self.windows[i].pooled[pooling, layer] for i in sorted(self.windows)])


@pytest.fixture(scope="module")
def model():
    return build("llama")


def prepared(model):
    return prepare(copy.deepcopy(model), device=torch.device("cpu"), dtype="float32", dtype_reason="")


def plan_of(rows):
    return make_plan(np.array([len(row) for row in rows], dtype=np.int32), batch_tokens=40, window_rows=9)


def run_all(backbone, sink, **options):
    run(backbone, ForwardPlan(ROWS, sink.plan, LAYERS, ("mean", "last")), sink, **options)


def assert_right(sink, model):
    for layer in LAYERS:
        expected = [reference_states(model, "encoder", row)[layer].numpy() for row in ROWS]
        np.testing.assert_allclose(sink.rows("mean", layer), [h.mean(0) for h in expected], atol=2e-5)
        np.testing.assert_allclose(sink.rows("last", layer), [h[-1] for h in expected], atol=2e-5)


def test_rows_come_back_in_input_order(model):
    """Trap: row order after length sorting; last-token index."""
    sink = Kept(plan_of(ROWS))
    seen = []
    run_all(prepared(model), sink, on_progress=seen.append)
    assert_right(sink, model)
    assert [p.tokens for p in seen] == sorted(p.tokens for p in seen)
    assert (seen[0].rows, seen[-1].rows, seen[-1].tokens) == (0, len(ROWS), sum(map(len, ROWS)))


def test_only_pending_windows_are_read(model):
    sink = Kept(plan_of(ROWS), pending=[1])
    seen = []
    run_all(prepared(model), sink, on_progress=seen.append)
    assert list(sink.windows) == [1]
    assert (seen[0].rows, seen[-1].rows) == (14, len(ROWS))


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("can't allocate memory")]
)
def test_out_of_memory_halves_the_batch_and_gives_the_same(model, error):
    backbone = prepared(model)
    sizes = []

    def small_memory(_module, _args, kwargs):
        n = kwargs["input_ids"].numel()
        if n > 15:
            raise error
        sizes.append(n)

    backbone.model.register_forward_pre_hook(small_memory, with_kwargs=True)
    sink = Kept(plan_of(ROWS))
    run_all(backbone, sink)
    assert_right(sink, model)
    assert max(sizes) <= 15
    assert sum(states.split_batches for states in sink.windows.values()) > 0


def test_out_of_memory_in_the_middle_of_a_pass_leaves_no_wrong_rows(model):
    backbone = prepared(model)
    failed = []

    def fail_once_per_size(_module, args):
        n = args[0].shape[1]
        if n > 15 and n not in failed:
            failed.append(n)
            raise torch.OutOfMemoryError("CUDA out of memory.")

    backbone.stack.blocks[2].register_forward_pre_hook(fail_once_per_size)  # layers 0 and 1 are pooled by then
    sink = Kept(plan_of(ROWS))
    run_all(backbone, sink)
    assert failed
    assert_right(sink, model)


def test_a_row_that_does_not_fit_alone_is_an_error(model):
    backbone = prepared(model)

    def no_memory(_module, _args, _kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    backbone.model.register_forward_pre_hook(no_memory, with_kwargs=True)
    with pytest.raises(
        OutOfMemoryError, match=r"a text of \d+ tokens: must fit .* --max-length; got CUDA out of memory"
    ):
        run_all(backbone, Kept(plan_of(ROWS)))


def test_another_runtime_error_is_not_taken_for_memory(model):
    backbone = prepared(model)

    def broken(_module, _args, _kwargs):
        raise RuntimeError("shape mismatch")

    backbone.model.register_forward_pre_hook(broken, with_kwargs=True)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        run_all(backbone, Kept(plan_of(ROWS)))


def test_ctrl_c_ends_within_a_batch_and_keeps_what_is_written(model):
    sink = Kept(plan_of(ROWS))
    calls = []

    def interrupt(progress):
        calls.append(progress)
        if progress.rows > 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all(prepared(model), sink, on_progress=interrupt)
    assert list(sink.windows) == [0]
    sink.todo = [1, 2]
    run_all(prepared(model), sink)
    assert_right(sink, model)


def test_an_error_of_the_sink_comes_through(model):
    class Full(Kept):
        def write_window(self, states):  # noqa: ARG002
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run_all(prepared(model), Full(plan_of(ROWS)))


def test_a_window_that_could_not_be_written_ends_the_run(model):
    """Writing goes on in the background: an error there must not get lost when the next window is ready."""

    class Full(Kept):
        def write_window(self, states):
            if states.index == 0:
                raise OSError("no space left")
            super().write_window(states)

    sink = Full(plan_of(ROWS))
    assert len(sink.plan.windows) > 2
    with pytest.raises(OSError, match="no space left"):
        run_all(prepared(model), sink)
    assert 2 not in sink.windows
