"""What moved an answer, by every method: against transformers' own runs, finite differences, captum, and by hand."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
import transformers

from probekit.errors import InputError, SpecError
from probekit.explanation.methods import METHOD_OF, STEPS, Asked, _look, _mean_slopes, moved, possible
from probekit.explanation.results import METHODS, Settings
from probekit.models.look_ups import look_ups
from probekit.models.relevance import find_rules, relevance
from tests.explanation.made_up import IDS, MASK_ID, UNIT, WORDS, bound, reading, unpadded
from tests.models.families import FAMILIES, build, reference_states

COMMON = ("bert", "llama", "bart-decoder")
EVERY = [pytest.param(name, marks=[] if name in COMMON else pytest.mark.slow) for name in FAMILIES]
ANSWERS = (2, 0)


@pytest.fixture(scope="module", autouse=True)
def quiet():
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("transformers").setLevel(logging.ERROR)


def depth(name):
    return 2 if name.endswith("-decoder") else 3


def without(word):
    """The text's tokens without those of a word, put together by hand."""
    return [1, *(token for w, tokens in enumerate(WORDS) for token in tokens if w != word), 2]


def masked(word):
    return [1, *(MASK_ID if w == word else token for w, tokens in enumerate(WORDS) for token in tokens), 2]


@pytest.mark.parametrize("name", EVERY)
def test_occlusion_is_what_the_answer_loses_without_a_word(name):
    model = build(name)
    with reading(name, model=model, layer=depth(name)) as found:
        settings = {"delete": without, "mask": masked}
        for remove, changed in settings.items():
            got = moved(found, Asked(bound(), ANSWERS), "occlusion", Settings(remove)).words
            scores = unpadded(found, [IDS, *(changed(w) for w in range(len(WORDS)))])
            expected = (scores[0] - scores[1:]).T[list(ANSWERS)]
            np.testing.assert_allclose(got, expected, atol=2e-4)


def test_occlusion_by_transformers_alone():
    model = build("bert")
    with reading("bert", model=model) as found:
        got = moved(found, Asked(bound(), (1,)), "occlusion", Settings()).words[0]
        weight = found.opened.scorer.score.weight.numpy()

        def log_odds(row):
            z = reference_states(model, "encoder", row)[2].numpy().mean(0) @ weight
            p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
            return np.log(p[1] / (1 - p[1]))

        full = log_odds(IDS.tolist())
        expected = [full - log_odds(without(w)) for w in range(len(WORDS))]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def stays_in_float64(patch):
    """Some models compute their norms in float32 whatever they are asked: here they don't."""
    to, softmax = torch.Tensor.to, torch.nn.functional.softmax

    def plain(self, *args, **kwargs):
        single = torch.float32 in args or kwargs.get("dtype") == torch.float32
        return self if single and self.dtype == torch.float64 else to(self, *args, **kwargs)

    patch.setattr(torch.Tensor, "to", plain)
    patch.setattr(torch.Tensor, "float", lambda self: self if self.dtype == torch.float64 else to(self, torch.float32))
    patch.setattr(torch.nn.functional, "softmax", lambda x, dim=-1, **_: softmax(x, dim=dim))


@pytest.mark.parametrize("name", EVERY)
def test_gradients_agree_with_finite_differences_in_float64(name, monkeypatch):
    stays_in_float64(monkeypatch)
    model = build(name).double()
    with reading(name, model=model, layer=depth(name), dtype="float64") as found:
        asked = Asked(bound(), (1,))
        embedded = _look(found, asked, asked.bound).embedded
        rule = (np.array([1.0]), np.array([1.0]))
        zeros = [torch.zeros_like(one) for one in embedded]
        slopes = _mean_slopes(found, asked, zeros, embedded, rule)
        generator = torch.Generator().manual_seed(1)
        ways = [torch.randn(one.shape, generator=generator, dtype=torch.float64) for one in embedded]

        def at(step):
            given = [one + step * way for one, way in zip(embedded, ways, strict=True)]
            return float(_look(found, asked, asked.bound, given).scores[1])

        step = 1e-5
        expected = (at(step) - at(-step)) / (2 * step)
    got = sum(float((slope[0] * way).sum()) for slope, way in zip(slopes, ways, strict=True))
    assert got == pytest.approx(expected, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("name", EVERY)
def test_integrated_gradients_add_up_to_the_difference_from_the_baseline(name):
    with reading(name, layer=depth(name)) as found:
        got = moved(found, Asked(bound(), ANSWERS), "integrated-gradients", Settings(baseline="mask"))
        ids = np.where(UNIT >= 0, MASK_ID, IDS)
        text, base = unpadded(found, [IDS, ids])[:, list(ANSWERS)]
    gap = np.abs(got.tokens.sum(1) - (text - base)) / np.abs(text - base)
    np.testing.assert_allclose(got.gap, gap, atol=1e-3)
    assert (got.gap < 0.01).all() or (got.steps == STEPS[-1] and (got.gap < 0.05).all())  # (ReLU has corners)
    np.testing.assert_allclose(got.apart, 0, atol=1e-12)
    for w in range(len(WORDS)):
        np.testing.assert_allclose(got.words[:, w], got.tokens[:, w == UNIT].sum(1))


@pytest.mark.parametrize("baseline", ["mask", "pad", "zero"])
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_integrated_gradients_are_captums(name, baseline):
    captum = pytest.importorskip("captum.attr", reason="captum is not installed")
    model = build(name)
    with reading(name, model=model) as found:
        got = moved(found, Asked(bound(), (1,)), "integrated-gradients", Settings(baseline=baseline))
        table = model.get_input_embeddings()
        ids = torch.from_numpy(IDS.astype(np.int64))
        token = {"mask": MASK_ID, "pad": 0, "zero": 0}[baseline]
        other = torch.where(torch.from_numpy(UNIT >= 0), torch.tensor(token), ids)
        start, base = table(ids).detach()[None], table(other).detach()[None]
        if baseline == "zero":
            base[0, UNIT >= 0] = 0.0

        def answer(embedded):
            states = model(inputs_embeds=embedded, output_hidden_states=True).hidden_states[2]
            return found.opened.scorer.score(states.mean(1))[:, 1]

        expected = captum.IntegratedGradients(answer).attribute(
            start, base, n_steps=got.steps, method="gausslegendre", internal_batch_size=8
        )
    np.testing.assert_allclose(got.tokens[0], expected[0].sum(-1).detach().numpy(), atol=1e-4)


def test_plain_gradients_are_those_of_torch():
    model = build("bert")
    with reading("bert", model=model) as found:
        asked = Asked(bound(), ANSWERS)
        product = moved(found, asked, "gradient-x-input", Settings())
        norm = moved(found, asked, "gradient-norm", Settings())
        embedded = model.get_input_embeddings()(torch.from_numpy(IDS.astype(np.int64)))[None].detach()
        embedded.requires_grad_(True)
        states = model(inputs_embeds=embedded, output_hidden_states=True).hidden_states[2]
        scores = found.opened.scorer.score(states.mean(1))[0]
        for i, answer in enumerate(ANSWERS):
            (slope,) = torch.autograd.grad(scores[answer], embedded, retain_graph=True)
            np.testing.assert_allclose(product.tokens[i], (slope * embedded)[0].sum(-1).detach(), atol=1e-5)
            np.testing.assert_allclose(norm.tokens[i], slope[0].norm(dim=-1), rtol=1e-5)
    assert product.apart[0] == pytest.approx(product.tokens[0][UNIT < 0].sum())


def test_two_classes_are_each_others_mirror():
    with reading("bert", n_classes=2) as found:
        for method in METHODS:
            both = moved(found, Asked(bound(), (0, 1)), method, Settings()).words
            one = moved(found, Asked(bound(), (1,)), method, Settings()).words[0]
            np.testing.assert_allclose(both[1], one, atol=1e-6)
            np.testing.assert_allclose(both[0], one if method == "gradient-norm" else -one, atol=1e-6)


def test_a_clear_answer_has_a_gradient_still():
    """Of a probability of 1 - 1e-17 the gradient is 0, of its log-odds it is not."""

    def certain(x):
        z = 40 * x.double()[:, :1] / x.double()[:, :1].detach().abs()
        return torch.cat([-z, z], 1)

    with reading("bert", n_classes=2, score=certain) as found:
        got = moved(found, Asked(bound(), (0,)), "gradient-norm", Settings())
    assert got.words.min() > 1e-3


# Relevance


def by_hand_llama(model, ids, weight, answer, layer):
    """AttnLRP of a llama by patched forward passes, as its authors' own code has it for gradients times input."""
    from transformers.models.llama import modeling_llama as llama

    def share(x, n):
        return x / n + (x - x / n).detach()

    def norm(self, x):
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * (x * scale.detach())

    def mlp(self, x):
        gate = self.gate_proj(x)
        activated = gate * (self.act_fn(gate) / gate).detach()
        return self.down_proj(share(activated * self.up_proj(x), 2))

    def attention(module, query, key, value, mask, scaling, **_):
        query, key, value = share(query, 4), share(key, 4), share(value, 2)
        key, value = (x.repeat_interleave(module.num_key_value_groups, 1) for x in (key, value))
        scores = query @ key.transpose(2, 3) * scaling
        n = scores.shape[-1]
        scores = scores.masked_fill(~torch.ones(n, n).tril().bool(), -torch.inf)
        return (scores.softmax(-1) @ value).transpose(1, 2).contiguous(), None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llama.LlamaRMSNorm, "forward", norm)
        patch.setattr(llama.LlamaMLP, "forward", mlp)
        patch.setattr(llama, "eager_attention_forward", attention)
        model.set_attn_implementation("eager")
        embedded = model.get_input_embeddings()(torch.from_numpy(ids.astype(np.int64)))[None].detach()
        embedded.requires_grad_(True)
        states = model(inputs_embeds=embedded, output_hidden_states=True, use_cache=False).hidden_states[layer]
        z = states.mean(1).double() @ weight
        rest = [k for k in range(z.shape[1]) if k != answer]
        (slope,) = torch.autograd.grad(z[0, answer] - torch.logsumexp(z[0, rest], 0), embedded)
    return (slope * embedded)[0].sum(-1).detach().numpy()


def test_lrp_of_a_llama_is_that_by_hand():
    with reading("llama", model=build("llama")) as found:
        got = moved(found, Asked(bound(), (1,)), "lrp", Settings()).tokens[0]
        plain = moved(found, Asked(bound(), (1,)), "gradient-x-input", Settings()).tokens[0]
        weight = found.opened.scorer.score.weight
    expected = by_hand_llama(build("llama"), IDS, weight, 1, 2)
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max() + 1e-7)
    assert np.abs(plain - expected).max() > 0.05 * np.abs(expected).max()


RULES = {"bert": (2, 1, 0), "llama": (2, 1, 1), "gpt2": (2, 1, 0)}
"""Norms, activations and gated products of a block."""


@pytest.mark.parametrize("name", RULES)
def test_the_parts_that_have_a_rule_are_found(name):
    with reading(name) as found:
        rules = find_rules(found.backbone, IDS)
        n_blocks = len(found.backbone.stack.blocks)
        inside = {module for block in found.backbone.stack.blocks for module in block.modules()}
    norms, activations, gated = RULES[name]
    assert len(rules.norms) == norms * n_blocks + 1  # and one before the first block, or behind the last
    assert len(inside.intersection(rules.activations)) == activations * n_blocks
    assert len(rules.gated) == gated * n_blocks
    assert (rules.centred == frozenset()) == (name == "llama")


@pytest.mark.parametrize("name", EVERY)
def test_the_rules_change_no_answer_or_are_refused(name):
    with reading(name, layer=depth(name)) as found:
        before = found.scores([bound()])
        if not possible(found, bound(), "lrp"):
            with pytest.raises(
                SpecError, match="--method lrp: needs a model whose attention goes through transformers"
            ):
                find_rules(found.backbone, IDS)
            return
        rules = find_rules(found.backbone, IDS)
        with relevance(found.backbone, rules):
            within = found.scores([bound()])
        np.testing.assert_allclose(within, before, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(found.scores([bound()]), before)
        assert np.isfinite(moved(found, Asked(bound(), (0,)), "lrp", Settings()).words).all()


@pytest.mark.parametrize("name", ["mamba", "fnet"])
def test_a_model_without_attention_has_no_rules(name):
    with reading(name) as found, pytest.raises(SpecError, match=f"--method lrp: needs a model .*a {name}"):
        moved(found, Asked(bound(), (0,)), "lrp", Settings())


# A planted word


def planted_llama():
    """A llama whose words say nothing (their embeddings are zero) but one, 9; so does the mask."""
    model = build("llama")
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        said = table[9].clone()
        table.zero_()
        table[9] = said
    return model


@pytest.mark.parametrize("method", METHODS)
def test_the_only_word_that_says_something_gets_everything(method):
    ids = np.array([1, 5, 9, 7, 11, 2], dtype=np.int32)
    unit = np.array([-1, 0, 1, 2, 3, -1], dtype=np.int32)
    for remove, baseline in (("mask", "mask"), ("mask", "zero")):
        with reading("llama", model=planted_llama(), pooling="last") as found:
            settings = Settings(remove, baseline)
            got = moved(found, Asked(bound(ids, unit), (1,)), method, settings).words[0]
        if method == "gradient-norm":  # zeros can be said something by, so their gradient is none
            assert got[1] > 0
            continue
        assert abs(got[1]) > 1e-3
        assert np.abs(np.delete(got, 1)).max() <= 1e-5 * abs(got[1])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("remove", ["delete", "mask"])
def test_the_only_word_that_a_probe_looks_at_gets_everything(method, remove):
    """Blocks that add nothing, and the maximum over tokens of a dimension that one word alone has."""
    model = build("llama")
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        table[:, 3] = 0.0
        table[9, 3] = 5.0
        for block in model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()

    def look(x):
        z = x.double()[:, 3:4] - 2
        return torch.cat([-z, z], 1)

    ids = np.array([1, 5, 9, 7, 11, 2], dtype=np.int32)
    unit = np.array([-1, 0, 1, 2, 3, -1], dtype=np.int32)
    with reading("llama", model=model, pooling="max", n_classes=2, score=look) as found:
        got = moved(found, Asked(bound(ids, unit), (1,)), method, Settings(remove)).words[0]
    assert got[1] == pytest.approx(1.0 if method == "gradient-norm" else 5.0, rel=1e-5)
    np.testing.assert_array_equal(np.delete(got, 1), 0)


# Batches, tables, refusals


@pytest.mark.parametrize("name", ["bert", "t5-decoder", "mamba"])
def test_several_texts_are_what_each_is_alone(name):
    short = bound(np.array([1, 7, 2], dtype=np.int32), np.array([-1, 0, -1], dtype=np.int32), name="2")
    with reading(name, layer=depth(name)) as found:
        together = found.scores([bound(), short])
        alone = np.concatenate([found.scores([bound()]), found.scores([short])])
        expected = unpadded(found, [IDS, short.ids])
    np.testing.assert_allclose(together, alone, atol=2e-5)
    np.testing.assert_allclose(alone, expected, atol=2e-5)


def test_the_decoder_side_looks_its_tokens_up_on_both_sides():
    with reading("t5-decoder", layer=2) as found:
        seen = []
        ids = torch.from_numpy(IDS.astype(np.int64))
        with look_ups(found.backbone, ids, lambda _k, embedded: seen.append(embedded.shape[1]) or embedded):
            found.score([bound()])
    assert sorted(seen) == [len(IDS) - 1, len(IDS)]


def test_what_can_not_be_is_said():
    with reading("bert", smooth=False) as found:
        for method in set(METHODS) - {"occlusion"}:
            with pytest.raises(SpecError, match="needs a probe that a gradient can go through; method occlusion"):
                moved(found, Asked(bound(), (0,)), method, Settings())
        moved(found, Asked(bound(), (0,)), "occlusion", Settings())
    model = build("bert")
    with torch.no_grad():
        model.encoder.layer[1].output.dense.weight.fill_(torch.inf)
    with reading("bert") as found:
        with torch.no_grad():
            found.backbone.stack.blocks[0].output.dense.weight.fill_(torch.nan)
        for method in METHODS:
            with pytest.raises(InputError, match="NaN or infinity"):
                moved(found, Asked(bound(), (0,)), method, Settings())


def test_every_method_is_there():
    assert tuple(METHOD_OF) == tuple(METHODS)
