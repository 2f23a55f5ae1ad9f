"""Heads on a model in hand: the same answers whatever the padding, gradients to both, and nothing else changed."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
import transformers as t

import probekit
from probekit.api.train import train
from probekit.errors import ModelError, SpecError
from probekit.extraction.request import same_model
from probekit.models import source
from probekit.models.live import use_checkpointing
from probekit.readspec import RunOptions
from probekit.spec import Silent
from probekit.training import origin
from probekit.training.saved_heads import load_heads
from tests.models.families import FAMILIES, SMALL, build
from tests.tiny import save_tiny_bert, tiny_texts

TEXTS = [[5, 9, 3, 7, 11, 4, 8, 30, 31, 22, 17, 2], [6], [12, 13, 14], [9, 1, 0, 2]]
HEADS = {
    "label": {"n_classes": 3},
    "score": probekit.HeadShape(None, "mlp", layer=2, pooling="last", width=6),
    "where": {"n_classes": 2, "head": "attention", "layer": -2},
    "depth": {"n_classes": 2, "head": "mix", "pooling": "max"},
}
SHAPES = {"label": (4, 3), "score": (4,), "where": (4, 2), "depth": (4, 2)}
SEVERAL = ["bert", "roberta", "gpt2", "llama", "qwen3", "gemma3", "t5", "mamba", "fnet"]


@pytest.fixture(autouse=True)
def quiet():
    t.utils.logging.set_verbosity_error()


def attached(name, heads=HEADS):
    model = build(name)
    torch.manual_seed(1)
    return probekit.attach(model, heads)


def padded(texts, *, left=False, pad=0):
    ids = torch.full((len(texts), max(map(len, texts)) + 1), pad)
    mask = torch.zeros_like(ids)
    for i, text in enumerate(texts):
        where = slice(ids.shape[1] - len(text), None) if left else slice(0, len(text))
        ids[i, where], mask[i, where] = torch.tensor(text), 1
    return ids, mask


def packed(texts):
    positions = [position for text in texts for position in range(len(text))]
    return {
        "input_ids": torch.tensor([[token for text in texts for token in text]]),
        "position_ids": torch.tensor([positions]),
    }


def assert_same(found, expected, tolerance=1e-5):
    assert found.keys() == expected.keys()
    for target, answers in expected.items():
        torch.testing.assert_close(found[target], answers, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", SEVERAL)
def test_padding_and_packing_make_no_difference(name):
    module = attached(name)
    with torch.no_grad():
        alone = [module(torch.tensor([text])) for text in TEXTS]
        expected = {target: torch.cat([answers[target] for answers in alone]) for target in HEADS}
        assert {target: tuple(answers.shape) for target, answers in expected.items()} == SHAPES
        for pad in (0, 2):
            for left in (False, True):
                assert_same(module(*padded(TEXTS, left=left, pad=pad)), expected)
        assert_same(module(**packed(TEXTS)), expected)
        rows = {name: torch.cat([part, part]) for name, part in packed(TEXTS).items()}
        assert_same(module(**rows), {target: torch.cat([a, a]) for target, a in expected.items()})
        ids, mask = padded(TEXTS, left=True)
        assert_same(module(ids, mask, (mask.cumsum(1) - 1).masked_fill(mask == 0, 1)), expected)
        assert_same(module(ids, mask.bool(), token_type_ids=torch.zeros_like(ids)), expected)


@pytest.mark.parametrize("name", SEVERAL)
def test_answers_are_those_of_the_models_own_hidden_states(name):
    module = attached(name)
    model = module.model.get_encoder() if name == "t5" else module.model
    with torch.no_grad():
        states = model(input_ids=torch.tensor(TEXTS[:1]), output_hidden_states=True).hidden_states
        found = module(torch.tensor(TEXTS[:1]))
        assert_same({"label": found["label"]}, {"label": module.heads["label"](states[-1].mean(1))})
        assert_same({"score": found["score"]}, {"score": module.heads["score"](states[2][:, -1])[:, 0]})


@pytest.mark.parametrize("name", SEVERAL)
def test_gradients_reach_heads_and_model_and_a_step_changes_both(name):
    module = attached(name).train()
    assert {id(p) for p in module.parameters()} == {
        id(p) for part in (module.model, module.heads) for p in part.parameters()
    }
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    answers = module(*padded(TEXTS, left=True))
    sum((answer**2).mean() for answer in answers.values()).backward()
    optimizer.step()
    changed = {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}
    assert {name for name in before if name.startswith("heads.")} <= changed
    assert len([name for name in changed if name.startswith("model.")]) >= 10
    # No hook of ours is left. (transformers' own way to hidden states are hooks.)
    hooks = [h for m in module.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    assert not [hook for hook in hooks if not hook.__module__.startswith("transformers.")]


def test_the_model_in_hand_stays_as_it_is():
    model = build("llama")
    model.requires_grad_(False)
    model.layers[1].requires_grad_(True).train()
    model.config.use_cache, model.config.output_hidden_states, model.config.return_dict = True, True, False
    flags = [p.requires_grad for p in model.parameters()]
    modes = [m.training for m in model.modules()]
    config, weights = model.config.to_dict(), copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()
    module = probekit.attach(model, {"label": {"n_classes": 3, "head": "attention"}})
    assert module.model is model
    assert not torch.equal(torch.get_rng_state(), random)  # new heads are drawn from torch's numbers, as layers are
    module(*padded(TEXTS))["label"].sum().backward()
    assert [p.requires_grad for p in model.parameters()] == flags
    assert [m.training for m in model.modules()] == modes
    assert model.config.to_dict() == config
    assert all(torch.equal(p, weights[name]) for name, p in model.state_dict().items())
    assert all((p.grad is not None) <= p.requires_grad for p in model.parameters())
    assert model.layers[1].mlp.up_proj.weight.grad is not None
    assert not module.training
    assert not module.heads["label"].training


def test_modules_do_what_torch_users_expect():
    module = attached("bert")
    expected = module(*padded(TEXTS))
    assert module.training is False
    module.train()
    assert module.model.training
    assert not torch.equal(module(*padded(TEXTS))["label"], expected["label"])  # dropout
    module.eval()
    other = probekit.attach(build("bert", seed=5), HEADS)
    other.load_state_dict(module.state_dict())
    assert_same(other(*padded(TEXTS)), expected, 0)
    same = copy.deepcopy(module)
    assert_same(same(*padded(TEXTS)), expected, 0)
    assert not {id(p) for p in same.parameters()} & {id(p) for p in module.parameters()}
    assert {id(p) for p in same._backbone.model.parameters()} <= {id(p) for p in same.parameters()}
    with torch.autocast("cpu", torch.bfloat16):
        mixed = module(*padded(TEXTS))
    module.to(torch.bfloat16)
    found = module(*padded(TEXTS))
    assert {answers.dtype for answers in found.values()} == {torch.bfloat16}
    for other in (mixed, found):
        assert_same({target: answers.float() for target, answers in other.items()}, expected, 0.1)


def test_checkpointing_gives_the_same_gradients():
    module = attached("llama")
    slopes = []
    for checkpointed in (False, True):
        if checkpointed:
            use_checkpointing(module._backbone)
        module.train().zero_grad()
        module.heads.eval()
        sum((answer**2).mean() for answer in module(*padded(TEXTS)).values()).backward()
        slopes.append({n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None})
    assert_same(slopes[1], slopes[0], 1e-6)


def test_a_text_that_is_read_another_way_for_its_length_shares_no_batch():
    """longrope: beyond the original length all positions of a batch are turned by other angles."""
    factors = {"short_factor": [1.0] * 6, "long_factor": [4.0 + i for i in range(6)]}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 8, "factor": 8.0, **factors}
    model = build("phi3", rope_parameters=rope, original_max_position_embeddings=8)
    module = probekit.attach(model, {"label": {"n_classes": 3}})
    with torch.no_grad():
        alone = torch.cat([module(torch.tensor([text]))["label"] for text in TEXTS])
        assert_same(module(*padded(TEXTS)), {"label": alone})


@pytest.mark.parametrize("whole", ["BertForSequenceClassification", "BertForMaskedLM", "BertModel"])
def test_a_head_of_the_models_own_is_in_the_way_of_nothing(whole):
    torch.manual_seed(0)
    model = getattr(t, whole)(t.BertConfig(**SMALL)).eval()
    module = probekit.attach(model, {"label": {"n_classes": 3}})
    states = model(torch.tensor(TEXTS[:1]), output_hidden_states=True).hidden_states[-1]
    assert_same({"label": module(torch.tensor(TEXTS[:1]))["label"]}, {"label": module.heads["label"](states.mean(1))})
    assert len(list(module.parameters())) == len(list(model.parameters())) + 2


def test_any_name_of_a_target_is_taken():
    names = ["a.b", "a%2Eb", "keys", "%6Beys", "training", "", "größe, in m"]
    with pytest.raises(SpecError, match="names of targets; got ''"):
        attached("bert", {name: {"n_classes": 2} for name in names})
    names.remove("")
    module = attached("bert", {name: {"n_classes": 2} for name in names})
    assert list(module(torch.tensor([[5, 6]]))) == names
    assert len(module.heads) == len(names)


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ({}, "attach, heads: at least one"),
        ({"y": {"n_classes": 3, "layer": 9}}, "head of 'y', layer 9: the model's states are of layers 0..3"),
        ({"y": {"n_classes": 3, "layer": -5}}, "head of 'y', layer -5: the model's states are of layers 0..3"),
        ({"y": {"n_classes": 0}}, "attach, target y, n_classes 0: a whole number of at least 1, or None for a number"),
        ({"y": {"n_clases": 3}}, "attach, target y, n_clases: one of n_classes, head, layer, pooling, width, dropout"),
        ({"y": {}}, "attach, target y, n_classes: must be given; None for a number"),
        ({"y": 3}, "attach, target y: a HeadShape or a dict of its fields; got 3"),
        ({"y": {"n_classes": 2, "head": "tree"}}, "target y, --head tree: one of linear, mlp, attention, mix"),
        ({"y": {"n_classes": 2, "layer": 1.5}}, "attach, target y, layer 1.5: a whole number"),
    ],
)
def test_heads_that_can_not_be_are_one_line(heads, message):
    with pytest.raises(SpecError) as raised:
        attached("bert", heads)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": torch.tensor([5, 6])}, "input_ids: whole numbers (n_rows, n_tokens); got int64 (2,)"),
        ({"input_ids": torch.ones(1, 2)}, "input_ids: whole numbers (n_rows, n_tokens); got float32 (1, 2)"),
        (
            {"input_ids": torch.ones(2, 2).long(), "attention_mask": torch.tensor([[1, 1], [0, 0]])},
            "attention_mask, row 1: at least one token",
        ),
        (
            {"input_ids": torch.ones(2, 2).long(), "attention_mask": torch.zeros(2, 2) - 1e9},
            "attention_mask: 1 for a token and 0 for padding",
        ),
        (
            {"input_ids": torch.ones(2, 2).long(), "attention_mask": torch.ones(2, 1, 2, 2)},
            "attention_mask: of the shape of input_ids, (2, 2); got (2, 1, 2, 2)",
        ),
        (
            {"input_ids": torch.ones(1, 4).long(), "position_ids": torch.tensor([[2, 3, 2, 3]])},
            "position_ids, row 0: must count from 0 in each text",
        ),
        (
            {"input_ids": torch.ones(1, 2).long(), "token_type_ids": torch.tensor([[0, 1]])},
            "token_type_ids: must be 0: texts alone are read, no pairs",
        ),
    ],
)
def test_inputs_that_can_not_be_are_one_line(inputs, message):
    with pytest.raises(SpecError) as raised:
        attached("bert", {"y": {"n_classes": 2}})(**inputs)
    assert str(raised.value) == message


def test_what_is_no_model_is_refused_by_name():
    heads = {"y": {"n_classes": 2}}
    with pytest.raises(ModelError, match=r"must be a transformers model, a PreTrainedModel; got a Linear$"):
        probekit.attach(torch.nn.Linear(2, 2), heads)
    vision = t.ViTModel(t.ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8))
    with pytest.raises(ModelError, match="model ViTModel: must read texts as token ids; got one that takes pixel"):
        probekit.attach(vision, heads)
    peft = pytest.importorskip("peft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
        wrapped = peft.get_peft_model(build("llama"), peft.LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ModelError, match="hand in its get_base_model"):
        probekit.attach(wrapped, heads)
    module = probekit.attach(wrapped.get_base_model(), heads)
    module(torch.tensor([[5, 6]]))["y"].sum().backward()
    assert module.model.layers[0].self_attn.q_proj.lora_B.default.weight.grad is not None


# Saved heads


@pytest.fixture(scope="module")
def cache(tmp_path_factory, tiny_model, tiny_data):
    path = tmp_path_factory.mktemp("attach") / "c.h5"
    probekit.extract(tiny_model, tiny_data, out=path, pooling=["mean", "last"], tokens="float32").close()
    return path


TRAININGS = {
    "linear": {},
    "mlp": {"head": "mlp", "layer": 1, "width": 8},
    "attention": {"head": "attention"},
    "mix": {"head": "mix"},
    "lora": {"backbone": "lora", "epochs": 1, "lr": 0.05},
    "full": {"backbone": "full", "epochs": 1, "lr": 0.01},
    "top": {"backbone": "top:1", "epochs": 1, "lr": 0.01, "layer": 2},
    "prompt": {"soft_prompt": 3, "epochs": 1, "lr": 0.1},
}


@pytest.mark.parametrize("name", TRAININGS)
def test_saved_heads_answer_as_they_do_with_their_own_model(name, tmp_path, cache, tiny_model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(cache, ["label", "score"], out=tmp_path / "heads", device="cpu", model=tiny_model, **TRAININGS[name])
    heads, texts = load_heads(tmp_path / "heads"), tiny_texts(9, seed=3)[0]
    opened = heads.open(same_model(heads.card["cache"], tiny_model), RunOptions("cpu"), Silent())
    (label, score), _ = opened.logits([0, 1], texts, listener=Silent())
    model, tokenizer = t.AutoModel.from_pretrained(tiny_model), t.AutoTokenizer.from_pretrained(tiny_model)
    model.embeddings.requires_grad_(False)
    flags = {id(p): p.requires_grad for p in model.parameters()}
    module = probekit.attach(model, tmp_path / "heads")
    assert all(p.requires_grad == flags.get(id(p), True) for p in module.parameters())
    assert module.labels == {"label": ("neg", "pos"), "score": ()}
    tokenizer.padding_side = "left"
    found = module(**tokenizer(texts, padding=True, return_tensors="pt"))
    np.testing.assert_allclose(found["label"].diff(dim=1).detach(), label, atol=1e-5)
    np.testing.assert_allclose(found["score"].detach(), heads.estimator(1).predict(score), atol=1e-4)
    sum(answers.sum() for answers in found.values()).backward()
    if name == "prompt":
        assert module.prompt.grad.abs().sum() > 0
    if name == "lora":
        assert any("lora_A" in n and p.grad is not None for n, p in module.named_parameters())
    # The heads themselves were not touched.
    assert not any(p.requires_grad and p.grad is not None for m in heads.modules for p in m.parameters())


def test_saved_heads_that_do_not_fit_are_one_line(tmp_path, cache, tiny_model):
    train(cache, "label", out=tmp_path / "heads", layer=2, model=tiny_model)
    with pytest.raises(SpecError) as raised:
        probekit.attach(build("bert"), tmp_path / "heads")
    assert str(raised.value) == "heads: need a model of 2 blocks; got 3"
    small = t.BertModel(t.BertConfig(**{**SMALL, "hidden_size": 16, "num_hidden_layers": 1}))
    with pytest.raises(SpecError) as raised:
        probekit.attach(small, tmp_path / "heads")
    assert str(raised.value) == "heads: need a model of 2 blocks; got 1"
    wide = t.BertModel(t.BertConfig(**{**SMALL, "hidden_size": 24, "num_hidden_layers": 2}))
    with pytest.raises(SpecError) as raised:
        probekit.attach(wide, tmp_path / "heads")
    assert str(raised.value) == "head of 'label': the model's states have 24 dimensions; got 16"


def test_the_caller_renders_prompts(tmp_path, tiny_model, tiny_data):
    with probekit.extract(tiny_model, tiny_data, out=tmp_path / "c.h5", prompt="the film {text}") as cache:
        heads = train(cache, "label").heads
    model = t.AutoModel.from_pretrained(tiny_model)
    with pytest.raises(SpecError) as raised:
        probekit.attach(model, heads)
    expected = "these heads read texts inside 'the film {text}': put them there yourself and say rendered=True"
    assert str(raised.value) == f"attach: {expected}"
    opened = heads.open(same_model(heads.card["cache"], tiny_model), RunOptions("cpu"), Silent())
    (logits,), _ = opened.logits([0], ["very good"], listener=Silent())
    ids = t.AutoTokenizer.from_pretrained(tiny_model)("the film very good", return_tensors="pt")["input_ids"]
    found = probekit.attach(model, heads, rendered=True)(ids)["label"]
    np.testing.assert_allclose(found.diff(dim=1).detach(), logits, atol=1e-5)


# Of which model


@pytest.fixture(scope="module")
def folders(tmp_path_factory, cache, tiny_model):
    """Heads on the frozen model, and some that tune it."""
    folder = tmp_path_factory.mktemp("folders")
    tuned = {"lora": {"backbone": "lora"}, "other": {"backbone": "lora", "lora_rank": 2}, "full": {"backbone": "full"}}
    for name, options in {"frozen": {}, **tuned, "prompt": {"soft_prompt": 2}}.items():
        more = {"lr": 0.05} if options else {}
        train(cache, "label", out=folder / name, device="cpu", model=tiny_model, layer=2, epochs=1, **more, **options)
    return folder


def logits_of(module):
    with torch.no_grad():
        return module(torch.tensor([[2, 5, 9, 3]]))["label"]


@pytest.mark.parametrize("first", ["lora", "full"])
def test_heads_of_another_backbone_are_refused_on_a_changed_model(folders, tiny_model, first):
    model = t.AutoModel.from_pretrained(tiny_model)
    expected = logits_of(probekit.attach(model, folders / first))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    for other in {"frozen", "lora", "other", "full", "prompt"} - {first}:
        with pytest.raises(SpecError) as raised:
            probekit.attach(model, folders / other)
        message = str(raised.value)
        needed = (
            "as it was loaded" if other in ("frozen", "prompt") else "as it was loaded, which they change themselves"
        )
        assert message.startswith(
            f"attach, heads of label: need the model {needed}: load it anew; got one that other heads changed ("
        )
    # The same heads again find what they need, new ones need nothing, and a model that another holds is the same one.
    torch.testing.assert_close(logits_of(probekit.attach(model, folders / first)), expected, atol=0, rtol=0)
    probekit.attach(model, {"label": {"n_classes": 2}})
    outer = t.BertForSequenceClassification(model.config)
    outer.bert = model
    with pytest.raises(SpecError, match="that other heads changed"):
        probekit.attach(outer, folders / "frozen")
    with pytest.raises(SpecError, match="that other heads changed"):
        probekit.attach(copy.deepcopy(model), folders / "frozen")
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_heads_that_change_nothing_go_together(folders, tiny_model):
    model = t.AutoModel.from_pretrained(tiny_model)
    for name in ("frozen", "prompt", "frozen", "lora"):
        probekit.attach(model, folders / name)


def test_an_adapter_that_can_not_be_given_names_no_temporary_folder(folders, tiny_model):
    heads, model = load_heads(folders / "lora"), t.AutoModel.from_pretrained(tiny_model)
    probekit.attach(model, heads)
    del model.probekit_heads
    with pytest.raises(SpecError, match=r"^adapter heads/adapter, target_modules: must name linear modules"):
        probekit.attach(model, heads)


def test_a_model_with_other_weights_is_refused(folders, tmp_path, tiny_model):
    other = save_tiny_bert(tmp_path / "other", seed=1)
    for name in ("frozen", "lora"):
        model = t.AutoModel.from_pretrained(other)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(
            ModelError, match=r"other: must be the one that was read, with revision sha256:.*; got sha256:"
        ):
            probekit.attach(model, folders / name)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    probekit.attach(t.AutoModelForSequenceClassification.from_pretrained(tiny_model), folders / "frozen")


def test_what_can_not_be_compared_is_said(folders, tmp_path, tiny_model):
    heads, model = load_heads(folders / "frozen"), t.AutoModel.from_pretrained(tiny_model)

    def doubt():
        with pytest.warns(probekit.ProbekitWarning) as warned:
            probekit.attach(model, heads)
        assert [one.filename for one in warned] == [__file__]
        text = str(warned[0].message)
        before = "attach: it could not be checked that the model is the one the heads were trained on: "
        assert text.startswith(before)
        return text.removeprefix(before)

    model.name_or_path = ""
    assert doubt() == "it does not say where it is from"
    model.name_or_path = "nowhere/at/all"
    assert "the model is from nowhere/at/all, on the hub" in doubt()
    for name in ("one.gguf", "two.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    model.name_or_path = str(tmp_path)
    assert doubt().endswith("holds several .gguf files")
    heads.card["cache"]["random_seed"] = 3
    assert doubt() == "the heads are of random weights"


def test_a_gguf_file_that_is_alone_is_compared(folders, tmp_path, tiny_model):
    heads, model = load_heads(folders / "frozen"), t.AutoModel.from_pretrained(tiny_model)
    (tmp_path / "one.gguf").write_bytes(b"GGUF")
    model.name_or_path = str(tmp_path)
    with pytest.raises(ModelError, match="must be the one that was read"):
        probekit.attach(model, heads)
    heads.card["cache"]["revision"] = source.locate(tmp_path / "one.gguf").revision
    probekit.attach(model, heads)


def test_a_model_of_the_hub_is_compared_by_its_commit(folders, tiny_model, monkeypatch):
    heads, model = load_heads(folders / "frozen"), t.AutoModel.from_pretrained(tiny_model)
    heads.card["cache"] |= {"model": "org/name", "revision": "a" * 40}
    at = {"org/name": "a" * 40, "org/alias": "a" * 40, "org/other": "b" * 40}
    monkeypatch.setattr(origin, "locate", lambda name: source.ModelSource(name, name, at[name], at[name], on_hub=True))
    for name in ("org/name", "org/alias"):
        model.name_or_path = name
        probekit.attach(model, heads)
    model.name_or_path = "org/other"
    with pytest.raises(
        ModelError, match=r"^model org/other: must be the one that was read, with revision a+…; got b+…$"
    ):
        probekit.attach(model, heads)
    model.name_or_path = "org/name"
    at["org/name"] = "b" * 40
    with pytest.warns(probekit.ProbekitWarning, match="org/name is at b+… now, the heads are of a+…"):
        probekit.attach(model, heads)
    model.config._commit_hash = "a" * 40  # as older versions of transformers say it
    probekit.attach(model, heads)
    model.config._commit_hash = "c" * 40
    with pytest.raises(ModelError, match=r"got c+…"):
        probekit.attach(model, heads)


def test_large_weights_are_hashed_once(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "LARGE", 8)
    hashed, digest = [], source.hashlib.file_digest
    monkeypatch.setattr(source.hashlib, "file_digest", lambda *a: hashed.append(1) or digest(*a))
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF" * 4)
    first = source.locate(file).revision
    assert source.locate(file).revision == first
    assert len(hashed) == 1
    file.write_bytes(b"UGGF" * 8)
    assert source.locate(file).revision != first
    file.write_bytes(b"GGUF")  # small: read each time
    assert source.locate(file).revision == source.locate(file).revision
    assert len(hashed) == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FAMILIES if not name.endswith("-decoder") and name not in SEVERAL])
def test_every_family(name):
    test_padding_and_packing_make_no_difference(name)
    test_gradients_reach_heads_and_model_and_a_step_changes_both(name)
