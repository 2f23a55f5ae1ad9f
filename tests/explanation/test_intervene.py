"""Does the model use what the probe reads: held against a planted answer, and against transformers' own passes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, roc_auc_score

from probekit import ProbekitError, extract, intervene, open_cache, probe, save, train
from probekit.api.intervene import _asked
from probekit.cli import run
from probekit.evaluate.run import plan_fits
from probekit.explanation import upper as upper_module
from probekit.explanation.effects import BINS, _auroc_of_counts
from probekit.explanation.erase import leace, moments
from probekit.explanation.intervention import (
    INTERVENTION_COLUMNS,
    InterventionOptions,
    answer_words,
    plan_intervention,
)
from probekit.explanation.upper import UpperRequest, open_upper
from probekit.extraction.request import same_model
from probekit.readspec import RunOptions
from probekit.report import table_csv
from probekit.saved import load_probe
from probekit.spec import Silent
from probekit.training.saved_heads import load_heads
from tests.explanation.planted import planted_table, save_planted
from tests.packaged import smollm2
from tests.tiny import save_tiny_bert
from tests.training.trained import table as tiny_table

OWN = {"threads": 1, "device": "cpu", "n_random": 2}


def saved_probe(cache, folder, target="label", **options):
    """The path of the probe of a layer, saved."""
    (path,) = save(probe(cache, target, **options), folder)
    return path


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """The planted model, a cache with token states, one without, and probes of layers 0 and 1."""
    folder = tmp_path_factory.mktemp("planted")
    model = save_planted(folder / "model")
    data = planted_table()
    options = {"dtype": "float32", "pooling": ["mean", "last"]}
    cached = extract(model, data, out=folder / "tokens.h5", tokens=True, token_dtype="float32", **options)
    pooled = extract(model, data, out=folder / "pooled.h5", **options)
    paths = {
        (pooling, k): saved_probe(cached, folder / f"{pooling}{k}", layers=[k], pooling=pooling)
        for pooling in ("mean", "last")
        for k in (0, 1)
    }
    return {"model": model, "data": data, "tokens": cached.path, "pooled": pooled.path, "probes": paths}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A bidirectional model of three blocks without a language-model head."""
    folder = tmp_path_factory.mktemp("bert")
    model = save_tiny_bert(folder / "tiny-bert", layers=3)
    data = tiny_table(100)
    cache = extract(model, data, out=folder / "cache.h5", tokens=True, token_dtype="float32", dtype="float32")
    probes = {t: saved_probe(cache, folder / t, t, layers=[1]) for t in ("label", "kind", "score", "topics")}
    return {"model": model, "data": data, "cache": cache.path, "probes": probes, "folder": folder}


def asked(given, where, **options):
    """``intervene`` on the planted model."""
    return intervene(
        given["probes"][where], given[options.pop("of", "tokens")], model=given["model"], **{**OWN, **options}
    )


def above(result, column):
    """A column of the layers above."""
    table = result.table[(result.table["measure"] == "probe") & (result.table["layer"] > result.table["erased_at"])]
    return table[column].to_numpy(dtype=float)


def measured(result, name):
    (row,) = result.table[result.table["measure"] == name].to_dict("records")
    return row


# A planted direction


@pytest.mark.parametrize(
    ("erase", "where"),
    [("leace", ("mean", 0)), ("leace", ("last", 1)), ("mean-difference", ("mean", 0)), ("direction", None)],
)
def test_where_one_direction_carries_the_label_erasing_it_takes_later_probes_to_chance(planted, tmp_path, erase, where):
    if where is None:  # a probe on standardised states finds the direction itself only where it is a dimension
        model = save_planted(tmp_path / "model", axis=True)
        cache = extract(model, planted["data"], out=tmp_path / "c.h5", dtype="float32", pooling=["last"])
        path = saved_probe(cache, tmp_path / "p", layers=[1])
        found = intervene(path, cache, erase=erase, answer="negative,positive", model=model, **OWN)
    else:
        found = asked(planted, where, erase=erase, answer="negative,positive")
    assert (above(found, "score_before") > 0.9).all()
    assert above(found, "score_fixed") == pytest.approx(0.5)
    assert above(found, "score_refitted") == pytest.approx(0.5)
    assert (above(found, "random_fixed") > 0.9).all()
    assert (above(found, "random_refitted") > 0.9).all()
    assert (above(found, "ci_low") > 0.2).all()
    answer = measured(found, "answer")
    assert answer["score_before"] > 0.95
    assert answer["score_fixed"] == pytest.approx(0.5, abs=0.05)
    assert answer["random_fixed"] > 0.9
    assert answer["ci_low"] > 0.2
    assert "is used above it" in found.verdict[0]
    assert any("uses it for its own answer" in sentence for sentence in found.verdict)
    assert "nothing else is used" in found.verdict[-1]


def test_a_direction_that_does_nothing_above_is_said_to_be_unused(planted, tmp_path):
    """The label of a number that no block can pass on: its direction is taken away right above."""
    model = tmp_path / "model"
    shutil.copytree(planted["model"], model)
    network = transformers.LlamaForCausalLM.from_pretrained(model)
    with torch.no_grad():
        for block in network.model.layers:  # nothing is written, so the last layer is the first, normed
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        network.lm_head.weight.zero_()
    network.save_pretrained(model)
    cache = extract(model, planted["data"], out=tmp_path / "c.h5", dtype="float32", pooling=["mean"])
    path = saved_probe(cache, tmp_path / "p", "kind", layers=[0])
    found = intervene(path, cache.path, model=model, **OWN)
    assert (above(found, "ci_low") < 0).all()
    assert found.verdict[0].startswith("No sign that")
    assert measured(found, "next-token loss")["causal_drop"] == pytest.approx(0.0, abs=1e-6)
    assert any(sentence.startswith("No sign that it counts for the next token") for sentence in found.verdict)


@pytest.mark.parametrize("erase", ["leace", "direction"])
def test_steering_moves_answers_to_the_side_it_says(planted, erase):
    up, down = (asked(planted, ("mean", 0), steer=a, erase=erase, answer="negative,positive") for a in (3.0, -3.0))
    assert (above(up, "shift") > 0.3).all()
    assert (above(down, "shift") < -0.3).all()
    assert (above(up, "shift_low") > 0).all()
    assert (above(down, "shift_high") < 0).all()
    assert measured(up, "answer")["shift"] > 0 > measured(down, "answer")["shift"]
    assert "Steering by 3 moves the mean answer" in up.verdict[0]
    assert np.isnan(above(asked(planted, ("mean", 0)), "shift")).all()


def test_steering_a_number(planted, tmp_path):
    path = saved_probe(open_cache(planted["tokens"]), tmp_path, "number", layers=[0], pooling="mean")
    found = intervene(path, planted["tokens"], steer=1.0, model=planted["model"], **OWN)
    spread = planted["data"]["number"].std()
    assert found.table["shift"][0] == pytest.approx(spread, rel=0.3)  # at layer 0 the probe sees all of it


# Against transformers' own passes


def own_states(model, ids, change, at):
    """hidden_states of transformers where every token's state that goes into block ``at`` was changed, and logits."""

    def hook(_module, args, kwargs):
        states = args[0] if args else kwargs["hidden_states"]
        new = torch.from_numpy(change(states[0].double().numpy())).to(states.dtype)[None]
        return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

    stack = model.model.layers if hasattr(model, "lm_head") else model.encoder.layer
    handle = stack[at].register_forward_pre_hook(hook, with_kwargs=True)
    try:
        with torch.no_grad():
            out = model(torch.tensor([ids]), output_hidden_states=True)
    finally:
        handle.remove()
    return [states[0].numpy() for states in out.hidden_states], out


def opened_upper(given, cache, layer, layers, pooling, **more):
    source = same_model(cache.spec, given["model"])
    rows = np.arange(cache.n_examples)
    return open_upper(
        cache, UpperRequest(layer, layers, pooling, **more), source, RunOptions("cpu", 1), rows=rows, listener=Silent()
    )


def test_every_token_is_changed_and_the_model_runs_on_from_there(planted):
    model = transformers.LlamaForCausalLM.from_pretrained(planted["model"]).eval()
    change = leace(moments(np.random.default_rng(0).standard_normal((50, 32)), np.eye(2)[np.arange(50) % 2], ""))
    rows = np.array([3, 17, 40])
    for name in ("tokens", "pooled"):
        cache = open_cache(planted[name])
        ids = [open_cache(planted["tokens"]).tokens(0).ids(int(i)) for i in rows]
        with opened_upper(planted, cache, 1, (2, 3), "mean", answer=("negative", "positive")) as upper:
            found = upper.changed(rows, upper.starts(rows), change, (1, 2, 3), speak=True)
        for i, tokens in enumerate(ids):
            states, out = own_states(model, tokens.tolist(), change, 1)
            assert np.allclose(found.pooled[0][i], change(states[1]).mean(0), atol=1e-4)
            assert np.allclose(found.pooled[1][i], states[2].mean(0), atol=1e-4)
            assert np.allclose(found.pooled[2][i], states[3].mean(0), atol=1e-4)
            logits = out.logits[0]
            loss = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(tokens[1:], dtype=torch.long))
            assert found.losses[i] == pytest.approx(float(loss), rel=1e-4)
            words = transformers.AutoTokenizer.from_pretrained(planted["model"]).convert_tokens_to_ids(
                ["negative", "positive"]
            )
            assert found.answers[i] == pytest.approx(float(logits[-1, words[1]] - logits[-1, words[0]]), abs=1e-3)


def test_a_bidirectional_model_too(bert):
    model = transformers.BertModel.from_pretrained(bert["model"]).eval()
    cache = open_cache(bert["cache"])
    change = leace(moments(np.random.default_rng(0).standard_normal((50, 16)), np.eye(2)[np.arange(50) % 2], ""))
    with opened_upper(bert, cache, 1, (2, 3), "mean") as upper:
        found = upper.changed(np.array([5, 6]), upper.starts(np.array([5, 6])), change, (2, 3), speak=False)
        assert upper.head is None
    for i, row in enumerate((5, 6)):
        states, _ = own_states(model, cache.tokens(1).ids(row).tolist(), change, 1)
        assert np.allclose(found.pooled[0][i], states[2].mean(0), atol=1e-4)
        assert np.allclose(found.pooled[1][i], states[3].mean(0), atol=1e-4)


def test_live_and_cached_starts_agree(planted):
    cached, live = (asked(planted, ("mean", 1), of=name, answer="negative,positive") for name in ("tokens", "pooled"))
    numbers = [c for c in INTERVENTION_COLUMNS if cached.table[c].dtype.kind == "f"]
    assert np.allclose(cached.table[numbers], live.table[numbers], atol=1e-4, equal_nan=True)
    assert cached.record["starts"]["from"] == "cached"
    assert live.record["starts"]["from"] == "live"
    assert max(result.record["starts"]["difference"] for result in (cached, live)) < 1e-4


def test_a_start_that_is_not_the_model_s_own_is_refused(planted, monkeypatch):
    def shifted(self, units, _real=upper_module.Upper.starts):
        return _real(self, units) + np.float32(0.05)

    monkeypatch.setattr(upper_module.Upper, "starts", shifted)
    with pytest.raises(ProbekitError, match="must give the states of a whole one") as found:
        asked(planted, ("mean", 1))
    assert "\n" not in str(found.value)


# What is fitted on what


def plan_of(probe_path, cache, **options):
    return plan_intervention(cache, _asked(probe_path, None, Silent()), InterventionOptions(**options), name="cache")


def test_nothing_of_the_test_rows_is_in_what_is_erased(planted, tmp_path):
    """Test rows with other texts and other labels leave every map as it was."""
    data = planted["data"].copy()
    test = data["split"] == "test"
    data.loc[test, "label"] = data.loc[test, "label"].to_numpy()[::-1]
    data.loc[test, "text"] = "the very film of the actor good"
    other = extract(planted["model"], data, out=tmp_path / "other.h5", dtype="float32", pooling=["mean", "last"])
    for erase in ("leace", "mean-difference"):
        mine = plan_of(planted["probes"]["mean", 1], open_cache(planted["pooled"]), erase=erase).change
        others = plan_of(planted["probes"]["mean", 1], other, erase=erase).change
        assert mine.left.tobytes() == others.left.tobytes()
        assert mine.right.tobytes() == others.right.tobytes()
        assert mine.mean.tobytes() == others.mean.tobytes()


def test_probes_are_those_of_untouched_and_of_changed_training_rows(bert):
    """Fitted by hand, on states that the passes gave."""
    cache = open_cache(bert["cache"])
    plan = plan_of(bert["probes"]["kind"], cache)
    found = intervene(bert["probes"]["kind"], bert["cache"], model=bert["model"], **OWN)
    rows = np.arange(cache.n_examples)
    with opened_upper(bert, cache, 1, (2, 3), "mean") as upper:
        changed = np.zeros((cache.n_examples, 16), dtype=np.float32)
        changed[rows] = upper.changed(rows, upper.starts(rows), plan.change, (3,), speak=False).pooled[0]
    fit = plan_fits(plan.target, plan.config)[0]
    y, train, test = plan.target.y, fit.train, fit.split.test
    column = np.asarray(cache.column("split"))
    assert set(column[train]) == {"train"}
    assert set(column[test]) == {"test"}
    untouched = np.array(cache.layer(3, "mean"))
    one, two = (fit.probe.fit(X[train], y[train], folds=fit.folds, seed=0).estimator for X in (untouched, changed))
    (row,) = found.table[found.table["layer"] == 3].to_dict("records")
    assert row["score_before"] == pytest.approx(accuracy_score(y[test], one.predict(untouched[test])))
    assert row["score_fixed"] == pytest.approx(accuracy_score(y[test], one.predict(changed[test])))
    assert row["score_refitted"] == pytest.approx(accuracy_score(y[test], two.predict(changed[test])))


def test_what_the_columns_say_of_one_another(bert):
    for target in ("kind", "score", "topics"):
        found = intervene(bert["probes"][target], bert["cache"], model=bert["model"], **OWN)
        table = found.table
        assert tuple(table.columns) == INTERVENTION_COLUMNS
        assert list(table["layer"]) == [1, 2, 3]
        better = table[["score_fixed", "score_refitted"]].max(axis=1)
        assert np.allclose(table["causal_drop"], table["score_before"] - better)
        assert np.allclose(table["beyond_random"], table["causal_drop"] - table["causal_random"])
        assert (table["ci_low"] <= table["beyond_random"] + 1e-9).all()
        assert (table["ci_high"] >= table["beyond_random"] - 1e-9).all()
        assert table["rank"].eq({"kind": 2, "score": 1, "topics": 3}[target]).all()
        assert 0 < table["variance_removed"][0] < 1


def test_the_same_seed_gives_the_same_bytes(bert):
    ask = partial(intervene, bert["probes"]["label"], bert["cache"], model=bert["model"], **OWN)
    one, two, other = (table_csv(ask(seed=seed).table) for seed in (0, 0, 1))
    assert one == two != other


def test_fewer_rows_and_some_layers(bert):
    found = intervene(bert["probes"]["label"], bert["cache"], max_rows=10, layers="3", model=bert["model"], **OWN)
    assert list(found.table["layer"]) == [1, 3]
    assert found.table[["n_train", "n_test", "n_random"]].iloc[0].tolist() == [10, 10, 2]
    assert any("--max-rows" in text for text in found.warnings)
    assert any("LEACE was fitted on 10 rows of 16 dimensions" in text for text in found.warnings)


def test_a_probe_of_the_user_s_own(bert, tmp_path):
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    own = make_pipeline(StandardScaler(), RidgeClassifier())
    path = saved_probe(open_cache(bert["cache"]), tmp_path, layers=[1], probe=own)
    found = intervene(path, bert["cache"], model=bert["model"], **OWN)
    assert set(found.table["probe"]) == {str(load_probe(path).card["probe"])}


def test_groups_of_the_probe_are_those_of_the_intervals(planted, tmp_path):
    cache = open_cache(planted["pooled"])
    path = saved_probe(cache, tmp_path, layers=[1], pooling="mean", group="pair", split=0.2)
    plan = plan_of(path, cache, split=0.2)
    assert plan.config.groups is not None
    pairs = np.asarray(cache.column("pair"))
    assert not set(pairs[plan.split.train]) & set(pairs[plan.split.test])
    assert len(intervene(path, cache, split=0.2, model=planted["model"], **OWN).table) == 4


def test_heads_that_are_linear_on_a_frozen_backbone(planted, tmp_path):
    frozen = tmp_path / "frozen"
    train(planted["tokens"], "label", out=frozen, layer=1, pooling="mean", epochs=3)
    found = intervene(frozen, planted["tokens"], model=planted["model"], **OWN)
    assert above(found, "score_refitted") == pytest.approx(0.5)
    of_head = _asked(frozen, None, Silent())
    head = load_heads(frozen).modules[0]
    x = torch.randn(1, 32, requires_grad=True)
    (slope,) = torch.autograd.grad(head(x)[0, 0], x)
    assert np.allclose(of_head.directions()[:, 0], slope[0].numpy(), rtol=1e-4, atol=1e-6)
    found = intervene(frozen, planted["tokens"], erase="direction", model=planted["model"], **OWN)
    assert found.table["rank"].eq(1).all()
    other = tmp_path / "mlp"
    train(planted["tokens"], "label", out=other, layer=1, pooling="mean", head="mlp", epochs=1)
    with pytest.raises(ProbekitError, match="must be linear, on a frozen backbone"):
        intervene(other, planted["tokens"], model=planted["model"], **OWN)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(5, 60))
def test_auroc_of_resampled_rows_is_that_of_scikit_learn(seed, n):
    rng = np.random.default_rng(seed)
    scores, positive = rng.integers(0, 8, size=n).astype(float), np.arange(n) % 2 == 0
    weights = rng.integers(0, 4, size=n).astype(float)
    weights[:2] = 1
    ranks = np.unique(scores, return_inverse=True)[1]
    sums = np.zeros(2 * BINS)
    np.add.at(sums, ranks + BINS * positive, weights)
    assert _auroc_of_counts(sums) == pytest.approx(roc_auc_score(positive, scores, sample_weight=weights))


# The language-model head


@pytest.mark.parametrize("family", ["gpt2", "llama-tied", "cohere", "gemma2", "mixtral"])
def test_the_head_gives_the_logits_of_the_whole_model(tmp_path, family):
    from probekit.models.backbone import prepare
    from probekit.models.language_head import load_language_head
    from probekit.models.source import ModelSource

    small = {"vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    small |= {"intermediate_size": 40, "num_key_value_heads": 1, "pad_token_id": None}
    configs = {
        "gpt2": lambda: transformers.GPT2Config(vocab_size=60, n_embd=24, n_layer=2, n_head=2),
        "llama-tied": lambda: transformers.LlamaConfig(**small, tie_word_embeddings=True),
        "cohere": lambda: transformers.CohereConfig(**small, logit_scale=0.3),
        "gemma2": lambda: transformers.Gemma2Config(**small, head_dim=12, final_logit_softcapping=2.0),
        "mixtral": lambda: transformers.MixtralConfig(**small, num_local_experts=2),
    }
    torch.manual_seed(0)
    whole = transformers.AutoModelForCausalLM.from_config(configs[family]()).eval()
    whole.save_pretrained(tmp_path)
    bare = transformers.AutoModel.from_pretrained(tmp_path, dtype=torch.float32)
    backbone = prepare(bare, device=torch.device("cpu"), dtype="float32", dtype_reason="")
    head = load_language_head(ModelSource("m", str(tmp_path), "", ""), backbone, trust_remote_code=False)
    ids = torch.arange(5, 17)[None]
    with torch.no_grad():
        out = whole(ids, labels=ids, output_hidden_states=True)
    assert torch.allclose(head.logits(out.hidden_states[-1][0]), out.logits[0], atol=1e-5)
    two = [np.arange(5, 17, dtype=np.int32), np.array([7], dtype=np.int32)]
    losses = head.losses(torch.cat([out.hidden_states[-1][0], out.hidden_states[-1][0, :1]]), two)
    assert losses[0] == pytest.approx(float(out.loss), rel=1e-4)
    assert np.isnan(losses[1])


def test_a_head_whose_weights_are_not_in_the_checkpoint(planted, tmp_path):
    """transformers would draw them at random."""
    from safetensors.torch import load_file, save_file

    model = tmp_path / "model"
    shutil.copytree(planted["model"], model)
    tensors = {n: t for n, t in load_file(model / "model.safetensors").items() if not n.startswith("lm_head")}
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    cache = extract(model, planted["data"], out=tmp_path / "c.h5", dtype="float32", pooling=["mean"])
    path = saved_probe(cache, tmp_path / "p", layers=[1])
    with pytest.raises(ProbekitError, match="weights of its language-model head are not in the checkpoint"):
        intervene(path, cache.path, model=model, **OWN)


# Mistakes


def test_words_of_an_answer():
    assert answer_words(" negative, positive") == (" negative", " positive")
    assert answer_words(["no", "yes"]) == ("no", "yes")
    assert answer_words(None) is None


@pytest.mark.slow
def test_a_gguf_file_has_its_head():
    from pathlib import Path

    from probekit.models.language_head import load_language_head
    from probekit.models.loading import load_backbone
    from probekit.models.source import locate
    from probekit.readspec import ReadSpec

    path = Path(smollm2())
    source = locate(path)
    backbone = load_backbone(source, ReadSpec(dtype="float32"), RunOptions("cpu", 1))
    head = load_language_head(source, backbone, trust_remote_code=False)
    whole = transformers.AutoModelForCausalLM.from_pretrained(
        str(path.parent), gguf_file=path.name, dtype=torch.float32
    ).eval()
    with torch.no_grad():
        out = whole(torch.arange(100, 112)[None], output_hidden_states=True)
    assert torch.allclose(head.logits(out.hidden_states[-1][0]), out.logits[0], atol=1e-4)


def refused(*words):
    """The line of a command that ends with exit code 2."""
    import contextlib
    import io

    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = run(["intervene", *map(str, words), "--threads", "1", "--jobs", "1", "--device", "cpu"])
    assert code == 2, said.getvalue()
    lines = [line for line in said.getvalue().splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "unexpected" not in lines[0]
    return lines[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--erase", "all"], "one of leace, mean-difference, direction"),
        (["--steer", "0"], "but not 0"),
        (["--steer", "nan"], "a number"),
        (["--random", "0"], "--random 0: 1 to 1,000"),
        (["--seed", "-1"], "--seed -1"),
        (["--max-rows", "3"], "--max-rows 3"),
        (["--layers", "1,2"], "must be above layer 1"),
        (["--layers", "7"], "layers"),
        (["--answer", "positive"], "two words"),
        (["--answer", "a,the,very"], "two words"),
        (["--answer", "good bad,fine"], "must be one token of the model .*'good' 'bad'"),
        (["--answer", "unheard,fine"], "must be one token"),
        (["--answer", "fine,fine"], "two words with tokens of their own"),
        (["--split", "0.3"], "--split says how"),
        (["--split", "nowhere"], "this cache has"),
        (["--target", "other"], "--target other"),
        (["--out", "x.txt"], "must end in .csv"),
        (["--plot", "x.gif"], "must end in .png"),
    ],
)
def test_options_that_can_not_be(planted, options, message):
    import re

    line = refused(planted["probes"]["mean", 1], planted["tokens"], "--model", planted["model"], *options)
    assert re.search(message, line), line


def changed_card(path, folder, **fields):
    """A copy of a probe whose card says something else."""
    folder.mkdir(exist_ok=True)
    shutil.copy(path, folder / path.name)
    card = json.loads(path.with_suffix(".json").read_text())
    card["cache"] |= fields.pop("cache", {})
    (folder / path.name).with_suffix(".json").write_text(json.dumps(card | fields))
    return folder / path.name


def test_probes_of_something_else(planted, bert, tmp_path):
    model, cache, mine = planted["model"], planted["tokens"], planted["probes"]["mean", 1]
    assert "must be of the states" in refused(bert["probes"]["label"], cache, "--model", model)
    assert "there is no such file" in refused(tmp_path / "none.skops", cache)
    assert "a folder with none" in refused(tmp_path, cache)
    other = changed_card(mine, tmp_path / "a", layer=7)
    assert "of which tokens.h5 has no states" in refused(other, cache, "--model", model)
    assert "with prompt None" in refused(changed_card(mine, tmp_path / "b", cache={"prompt": "so {text}"}), cache)
    assert "must be of the classes" in refused(changed_card(mine, tmp_path / "c", labels=["a", "b"]), cache)
    assert "this cache has" in refused(changed_card(mine, tmp_path / "d", target="nowhere"), cache)
    assert "must be a .skops file" in refused(cache, cache, "--model", model)
    last = saved_probe(open_cache(cache), tmp_path / "last", layers=[3], pooling="mean")
    assert "must read a layer below the last, 3" in refused(last, cache, "--model", model)


def test_a_cache_with_other_rows_of_the_same_model(planted, tmp_path):
    other = extract(planted["model"], planted_table(40, seed=3), out=tmp_path / "other.h5", pooling=["mean"])
    line = refused(planted["probes"]["mean", 1], other.path, "--model", planted["model"])
    assert "was fitted with 72/24/24 training, validation and test rows" in line


def test_caches_that_can_not_be_used(planted, tmp_path):
    model, data = planted["model"], planted["data"]
    make = partial(extract, model, data, dtype="float32", pooling=["mean"])
    top = make(out=tmp_path / "top.h5", layers=[2])
    path = saved_probe(top, tmp_path / "top", layers=[2])
    assert "must have a layer above it in the cache" in refused(path, top.path, "--model", model)
    bare = make(out=tmp_path / "bare.h5", store_text=False)
    path = saved_probe(bare, tmp_path / "bare", layers=[1])
    assert "the texts were not stored" in refused(path, bare.path, "--model", model)
    other = save_planted(tmp_path / "other", idle=False)
    inside = extract(other, data, out=tmp_path / "mlp.h5", dtype="float32", pooling=["mean"], site="mlp")
    path = saved_probe(inside, tmp_path / "mlp", layers=[1])
    assert "--site block" in refused(path, inside.path, "--model", other)
    random = make(out=tmp_path / "random.h5", random_seed=1)
    path = saved_probe(random, tmp_path / "random", layers=[1])
    assert "the model's own weights" in refused(path, random.path, "--model", model, "--answer", "negative,positive")
    assert len(intervene(path, random.path, model=model, **OWN).table) == 3  # without a loss


def test_another_model_than_the_cache_s(planted, bert):
    line = refused(planted["probes"]["mean", 1], planted["tokens"], "--model", bert["model"])
    assert "must be the one that was read" in line


def test_answers_of_models_and_targets_that_have_none(bert, planted, tmp_path):
    ask = partial(refused, bert["probes"]["label"], bert["cache"], "--model", bert["model"])
    assert "must have been saved with a language-model head" in ask("--answer", "good,bad")
    for target, kind in (("kind", "3 classes"), ("score", "regression"), ("topics", "multilabel")):
        line = refused(bert["probes"][target], bert["cache"], "--model", bert["model"], "--answer", "good,bad")
        assert "is for a target of two classes" in line
        assert kind in line
    for target in ("kind", "topics"):
        line = refused(bert["probes"][target], bert["cache"], "--model", bert["model"], "--steer", "1")
        assert "of two classes or of numbers" in line


def test_tags_and_attention_are_refused(bert, tmp_path):
    data = pd.DataFrame(
        {
            "words": [t.split() for t in bert["data"]["text"]],
            "tags": [["X" if w in ("good", "bad") else "Y" for w in t.split()] for t in bert["data"]["text"]],
            "split": bert["data"]["split"],
        }
    )
    cache = extract(bert["model"], data, out=tmp_path / "tags.h5", text="words", tokens=True, dtype="float32")
    path = saved_probe(cache, tmp_path / "tags", "tags", layers=[1])
    assert "must read whole texts" in refused(path, cache.path, "--model", bert["model"])
    path = changed_card(bert["probes"]["label"], tmp_path / "attention", pooling="attention")
    assert "must read pooled states" in refused(path, bert["cache"], "--model", bert["model"])
    path = saved_probe(open_cache(bert["cache"]), tmp_path / "knn", layers=[1], probe="knn")
    assert "is not linear" in refused(path, bert["cache"], "--model", bert["model"], "--erase", "direction")


def test_states_that_are_not_finite_are_one_line(bert, tmp_path, monkeypatch):
    """In the cache at the layer, in the cache above it, and in what the model makes of changed states."""
    path, cache = bert["probes"]["label"], open_cache(bert["cache"])
    for layer, said in ((1, "layer 1 of cache.h5"), (3, "layer 3")):
        real = type(cache).layer

        def broken(self, k, pooling=None, *, mapped=True, _real=real, _layer=layer):
            found = np.array(_real(self, k, pooling, mapped=mapped))
            if k == _layer and not mapped:
                found[3:60, 1] = np.nan
            return found

        monkeypatch.setattr(type(cache), "layer", broken)
        line = refused(path, bert["cache"], "--model", bert["model"])
        assert said in line
        assert "finite" in line
        monkeypatch.setattr(type(cache), "layer", real)

    def infinite(self, units, states, change, layers, *, speak, _real=upper_module.Upper.changed):
        found = _real(self, units, states, change, layers, speak=speak)
        return replace(found, pooled=tuple(p * np.float32(np.inf) for p in found.pooled))

    monkeypatch.setattr(upper_module.Upper, "changed", infinite)
    line = refused(path, bert["cache"], "--model", bert["model"])
    assert "above the changed layer 1" in line
    assert "finite" in line


# The command


def test_the_command_prints_its_table_and_writes_its_files(planted, tmp_path, capsys):
    words = ["intervene", str(planted["probes"]["mean", 1].parent), str(planted["tokens"]), "--threads", "1"]
    words += ["--model", str(planted["model"]), "--jobs", "1", "--answer", "negative,positive", "--device", "cpu"]
    files = ["--out", str(tmp_path / "x.csv"), "--plot", str(tmp_path / "x.svg")]
    assert run([*words, *files]) == 0
    said = capsys.readouterr()
    assert "label: LEACE taken out of every token at layer 1" in said.out
    assert "own answer, AUROC" in said.out
    assert "started at cached token states" in said.err
    table = pd.read_csv(tmp_path / "x.csv")
    assert tuple(table.columns) == INTERVENTION_COLUMNS
    assert table["measure"].tolist() == ["probe"] * 3 + ["next-token loss", "answer"]
    assert table["layer"].tolist() == [1, 2, 3, 3, 3]
    for value in table["score_before"]:
        assert f"{value:.3f}" in said.out
    beside = json.loads((tmp_path / "x.json").read_text())
    assert len(beside["rows"]) == 5
    assert beside["options"]["answer"] == ["negative", "positive"]
    assert beside["verdict"][0].startswith("What the probe reads")
    assert (tmp_path / "x.svg").read_bytes().startswith(b"<?xml")
    assert run([*words, *files]) == 2  # they are there already
    assert "--overwrite" in capsys.readouterr().err
    assert run([*words, "--json", "--steer", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"][0]["shift"] is not None
    assert run([*words, "--steer", "2"]) == 0
    assert "+2 along the class means added to every token at layer 1" in capsys.readouterr().out
