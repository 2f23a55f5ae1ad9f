"""LoRA and soft prompts on every family: what trains, and what comes back from a file."""

from __future__ import annotations

import copy
import json
import logging
import shutil
import sys
from dataclasses import replace

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel

from probekit.errors import SpecError
from probekit.models.adapters import add_lora, load_adapter, load_prompt, new_prompt, save_adapter, save_prompt
from probekit.models.backbone import prepare
from probekit.models.live import for_training, live_states, use_checkpointing, whole_model
from tests.models.families import FAMILIES, build

TEXTS = [[5, 9, 3, 7, 11, 4, 8, 30, 31, 22, 17, 2], [6], [12, 13, 14], [9, 1, 0]]
LORA = {"rank": 2, "alpha": 4, "dropout": 0.0, "targets": "all-linear", "sequences": TEXTS}
OLD_NAME = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
"""Which plain peft asks for."""


@pytest.fixture(scope="module", autouse=True)
def quiet():
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("transformers").setLevel(logging.ERROR)


def ready(name, model=None, **options):
    return prepare(
        model or build(name),
        device=torch.device("cpu"),
        dtype="float32",
        dtype_reason="",
        side=FAMILIES[name].side,
        **options,
    )


COMMON = ("bert", "roberta", "gpt2", "llama", "qwen3", "gemma3", "t5", "t5-decoder", "mamba", "mixtral", "fnet")


@pytest.fixture(
    scope="module", params=[name if name in COMMON else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def case(request):
    """Families of every kind; the others are left to ``make slow``."""
    return request.param, ready(request.param)


def copied(backbone):
    memo = {}
    model = copy.deepcopy(backbone.model, memo)
    blocks = tuple(memo[id(block)] for block in backbone.stack.blocks)
    return replace(backbone, model=model, stack=replace(backbone.stack, blocks=blocks))


def streamed(backbone, layers):
    got = {}
    backbone.stream(TEXTS, layers=layers, receive=lambda k, states: got.update({k: states.clone()}))
    return got


def loss_of(states):
    torch.manual_seed(3)
    return sum(((one * torch.randn(one.shape[-1])).sum(1) ** 2).mean() for one in states.values())


def shaken(adapter):
    """A LoRA starts as nothing at all."""
    with torch.no_grad():
        for parameter in adapter.parameters.values():
            parameter.add_(0.1 * torch.randn_like(parameter))


def test_only_the_lora_trains_and_it_comes_back_to_the_bit(case, tmp_path):
    _, original = case
    backbone = copied(original)
    n = backbone.stack.n_layers
    before_any = streamed(backbone, (n,))
    with for_training(backbone) as padded:
        adapter = add_lora(padded, layers=(n,), **LORA)
        assert adapter.targets
        assert not any("pooler" in target for target in adapter.targets)
        assert len(adapter.parameters) == 2 * len(adapter.targets)
        assert not any(one.training for one in whole_model(backbone).modules())
        before = {n: p.detach().clone() for n, p in backbone.model.named_parameters()}
        declared = {id(p) for p in adapter.parameters.values()}
        assert {id(p) for p in backbone.model.parameters() if p.requires_grad} == declared
        optimizer = torch.optim.Adam(adapter.parameters.values(), lr=1e-2)
        for i in range(2):  # in the first one half of a LoRA is 0, and the other half has a gradient of 0
            optimizer.zero_grad()
            states = live_states(padded, TEXTS, layers=(n,))
            if i == 0:
                assert torch.allclose(states[n], before_any[n], atol=2e-6 * float(before_any[n].abs().max()))
            loss_of(states).backward()
            optimizer.step()
    after = dict(backbone.model.named_parameters())
    assert {id(after[one]) for one, old in before.items() if not torch.equal(after[one], old)} == declared
    save_adapter(adapter, tmp_path / "a")
    again = copied(original)
    torch.manual_seed(4)
    loaded = load_adapter(again, tmp_path / "a")
    drawn = torch.rand(1)
    torch.manual_seed(4)
    assert torch.equal(drawn, torch.rand(1))
    assert loaded.targets == adapter.targets
    assert loaded.parameters.keys() == adapter.parameters.keys()
    expected, got = (streamed(one, (1, n)) for one in (backbone, again))
    for layer in (1, n):
        assert torch.equal(got[layer], expected[layer])
    assert not torch.equal(got[n], before_any[n])
    save_adapter(loaded, tmp_path / "b")
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize("name", ["bert", "llama", "gpt2"])
@OLD_NAME
def test_plain_peft_reads_it(name, tmp_path):
    import peft

    build(name).save_pretrained(tmp_path / "model")
    backbone = ready(name, AutoModel.from_pretrained(tmp_path / "model"))
    with for_training(backbone) as padded:
        adapter = add_lora(padded, layers=(3,), **LORA)
        shaken(adapter)
        expected = live_states(padded, TEXTS[:1], layers=(1, 2, 3))
    save_adapter(adapter, tmp_path / "lora")
    assert {file.name for file in (tmp_path / "lora").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert str(tmp_path) not in (tmp_path / "lora" / "adapter_config.json").read_text()
    assert json.loads((tmp_path / "lora" / "adapter_config.json").read_text())["base_model_name_or_path"] is None
    model = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(tmp_path / "model"), tmp_path / "lora").eval()
    with torch.no_grad():
        got = model(input_ids=torch.tensor(TEXTS[:1]), output_hidden_states=True).hidden_states
    for layer, states in expected.items():
        assert torch.equal(got[layer][0], states)


@OLD_NAME
def test_what_plain_peft_writes_is_read(tmp_path):
    import peft

    torch.manual_seed(1)
    config = peft.LoraConfig(r=3, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    model = peft.get_peft_model(build("llama"), config)
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = model.eval()(input_ids=torch.tensor(TEXTS[:1]), output_hidden_states=True).hidden_states
    backbone = ready("llama")
    load_adapter(backbone, tmp_path)
    with for_training(backbone) as padded, torch.no_grad():
        assert torch.equal(live_states(padded, TEXTS[:1], layers=(3,))[3], expected[3][0])


def test_only_what_is_reached_by_a_call():
    backbone = ready("bert")
    with for_training(backbone) as padded:
        adapter = add_lora(padded, layers=(1,), **LORA)
    assert {target.split(".")[2] for target in adapter.targets} == {"0"}

    model = build("llama")
    for block in model.layers:
        linear = block.mlp.down_proj
        block.mlp.forward = lambda x, mlp=block.mlp, weight=linear.weight: nn.functional.linear(
            mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x), weight
        )
    backbone = ready("llama", model)
    with for_training(backbone) as padded:
        adapter = add_lora(padded, layers=(3,), **LORA)
    assert {target.rpartition(".")[2] for target in adapter.targets} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"),
    }


@pytest.mark.parametrize(("name", "uncalled"), [("mamba", {"out_proj", "dt_proj", "x_proj"}), ("mamba2", {"out_proj"})])
def test_no_lora_where_a_fused_kernel_would_pass_it_by(name, uncalled):
    backbone = ready(name)
    with for_training(backbone) as padded:
        adapter = add_lora(padded, layers=(backbone.stack.n_layers,), **LORA)
    assert {target.rpartition(".")[2] for target in adapter.targets} == {"in_proj"}
    linear = {name.rpartition(".")[2] for name, one in build(name).named_modules() if isinstance(one, nn.Linear)}
    assert linear == uncalled | {"in_proj"}


def test_targets_by_the_ends_of_their_names():
    backbone = ready("llama")
    with for_training(backbone) as padded:
        options = LORA | {"layers": (3,)}
        with pytest.raises(SpecError, match="--lora-targets query: one of down_proj, gate_proj, k_proj, o_proj"):
            add_lora(padded, **options | {"targets": ["q_proj", "query"]})
        with pytest.raises(SpecError, match="--lora-targets proj: one of"):
            add_lora(padded, **options | {"targets": ["proj"]})
        adapter = add_lora(padded, **options | {"targets": ["q_proj", "mlp.up_proj"]})
    assert adapter.targets == tuple(
        sorted(f"layers.{i}.{part}" for i in range(3) for part in ("self_attn.q_proj", "mlp.up_proj"))
    )


def test_drawn_from_the_seed():
    drawn = []
    for seed in (1, 1, 2):
        backbone = ready("bert")
        torch.manual_seed(seed)
        with for_training(backbone) as padded:
            adapter = add_lora(padded, layers=(3,), **LORA)
        drawn.append(torch.cat([p.detach().flatten() for p in adapter.parameters.values()]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_dropout_only_in_training():
    backbone = ready("llama")
    with for_training(backbone) as padded:
        shaken(add_lora(padded, layers=(3,), **LORA | {"dropout": 0.5}))
        a, b = (live_states(padded, TEXTS, layers=(3,))[3] for _ in range(2))
        assert torch.equal(a, b)
        backbone.model.train()
        a, b = (live_states(padded, TEXTS, layers=(3,))[3] for _ in range(2))
        assert not torch.equal(a, b)


@pytest.mark.parametrize("name", ["bert", "llama", "gpt2", "t5-decoder", "mamba"])
def test_checkpointed_lora_has_the_same_gradients(name):
    """Trap: no input of the first block requires a gradient."""
    backbone = ready(name)
    n = backbone.stack.n_layers
    with for_training(backbone) as padded:
        adapter = add_lora(padded, layers=(n,), **LORA)
        shaken(adapter)
        for one in backbone.model.modules():
            if isinstance(one, nn.Dropout):
                one.p = 0.0
            for attribute, value in vars(one).items():
                if "dropout" in attribute and isinstance(value, float):
                    setattr(one, attribute, 0.0)
        parameters = list(adapter.parameters.values())
        expected = torch.autograd.grad(loss_of(live_states(padded, TEXTS, layers=(n,))), parameters)
        use_checkpointing(padded)
        got = torch.autograd.grad(loss_of(live_states(padded, TEXTS, layers=(n,))), parameters)
    for a, b in zip(got, expected, strict=True):
        assert bool(a.any())
        assert float((a - b).norm()) <= 1e-6 * max(float(b.norm()), 1e-3)


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    folder, backbone = tmp_path_factory.mktemp("once"), ready("bert")
    with for_training(backbone) as padded:
        save_adapter(add_lora(padded, layers=(3,), **LORA | {"targets": ["query"]}), folder)
    return folder


@pytest.fixture
def saved(once, tmp_path):
    return shutil.copytree(once, tmp_path / "saved")


@pytest.fixture(scope="module")
def refused():
    backbone = ready("bert")

    def refuse(folder, match):
        with pytest.raises(SpecError, match=match):
            load_adapter(backbone, folder)
        assert not any("lora" in name for name, _ in backbone.model.named_parameters())

    return refuse


def first_tensor(folder):
    tensors = load_file(folder / "adapter_model.safetensors")
    return tensors, min(tensors)


def test_tensors_missing_surplus_or_of_another_shape(saved, refused):
    tensors, first = first_tensor(saved)
    file = saved / "adapter_model.safetensors"
    save_file({name: tensor for name, tensor in tensors.items() if name != first}, file)
    refused(saved, f"must have the tensor {first}")
    save_file(tensors | {"base_model.model.zzz.lora_A.weight": torch.zeros(2, 2)}, file)
    refused(saved, "has no use for tensor base_model.model.zzz.lora_A.weight")
    save_file(tensors | {first: torch.zeros(2, 3)}, file)
    refused(saved, rf"{first}: must be of shape \(2, 24\); got \(2, 3\)")
    save_file(tensors | {first: torch.full((2, 24), float("nan"))}, file)
    refused(saved, f"{first}: must hold finite numbers")
    file.write_bytes(b"nothing")
    refused(saved, "must be a safetensors file that can be read")
    file.unlink()
    torch.save(tensors, saved / "adapter_model.bin")  # a pickle
    refused(saved, "must be a safetensors file that can be read")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"peft_type": "IA3"}, "must have peft_type LORA"),
        ({"modules_to_save": ["pooler"]}, "modules_to_save: must be what peft has of its own accord"),
        ({"something": 1}, "something: must be what peft has"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights: must be true or false; got 'pissa'"),
        ({"r": "many"}, "r: must be an integer above 0; got 'many'"),
        ({"r": 10**9}, r"must be of shape \(1000000000, 24\)"),
        ({"lora_dropout": 2}, r"lora_dropout: must be 0\.\.1"),
        ({"target_modules": "all-linear"}, "target_modules: must be names"),
        ({"target_modules": ["layer"]}, "target_modules: must name linear modules of this model; got encoder.layer"),
        ({"target_modules": ["q_proj"]}, "target_modules: must name linear modules of this model; got q_proj"),
    ],
)
def test_settings_of_a_stranger(saved, refused, change, match):
    settings = json.loads((saved / "adapter_config.json").read_text())
    (saved / "adapter_config.json").write_text(json.dumps(settings | change))
    refused(saved, match)


def test_a_config_that_is_none(saved, refused):
    (saved / "adapter_config.json").write_text("{")
    refused(saved, "must be JSON that can be read")
    (saved / "adapter_config.json").unlink()
    refused(saved, "must be JSON that can be read")


def test_without_peft(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    backbone = ready("bert")
    with (
        for_training(backbone) as padded,
        pytest.raises(SpecError, match=r"--backbone lora: needs the package peft: in the clone, pip install"),
    ):
        add_lora(padded, layers=(3,), **LORA)


def test_a_prompt_starts_as_tokens_and_trains(case):
    _, backbone = case
    if backbone.model.__class__.__name__ == "DecoderSide":
        with pytest.raises(SpecError, match="--soft-prompt: needs a model that takes inputs_embeds"):
            new_prompt(backbone, 2)
        return
    torch.manual_seed(0)
    prompt = new_prompt(backbone, 4)
    table = backbone.model.get_input_embeddings()
    with torch.no_grad():
        tokens = table(torch.arange(backbone.vocabulary))
    assert all(bool((tokens == row).all(1).any()) for row in prompt.detach())
    assert prompt.requires_grad
    with for_training(backbone) as padded:
        loss_of(live_states(padded, TEXTS, layers=(2,), prompt=prompt)).backward()
    assert bool((prompt.grad.abs().sum(1) > 0).all())


@pytest.mark.parametrize("name", ["bert", "llama"])
@OLD_NAME
def test_plain_peft_reads_the_prompt(name, tmp_path):
    import peft

    build(name).save_pretrained(tmp_path / "model")
    backbone = ready(name, AutoModel.from_pretrained(tmp_path / "model"))
    prompt = new_prompt(backbone, 3)
    save_prompt(prompt, tmp_path / "prompt")
    assert torch.equal(load_prompt(tmp_path / "prompt"), prompt)
    model = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(tmp_path / "model"), tmp_path / "prompt").eval()
    with torch.no_grad(), for_training(backbone) as padded:
        got = model(
            input_ids=torch.tensor(TEXTS[:1]), attention_mask=torch.ones(1, 12, dtype=torch.long)
        ).last_hidden_state
        expected = live_states(padded, TEXTS[:1], layers=(3,), prompt=prompt)[3]
    assert torch.allclose(got[0, 3:], expected, atol=1e-6)


def test_prompts_that_are_none(tmp_path):
    save_prompt(torch.zeros(3, 5), tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file({"prompt_embeddings": torch.zeros(3, 4)}, file)
    with pytest.raises(SpecError, match=r"prompt_embeddings: must be of shape \(3, 5\); got \(3, 4\)"):
        load_prompt(tmp_path)
    save_file({"prompt_embeddings": torch.zeros(3, 5), "more": torch.zeros(1)}, file)
    with pytest.raises(SpecError, match="must have the tensor prompt_embeddings and no other; got more"):
        load_prompt(tmp_path)
    backbone = ready("bert")
    with pytest.raises(SpecError, match="--soft-prompt: at least 1; got 0"):
        new_prompt(backbone, 0)
    with pytest.raises(SpecError, match="must have peft_type LORA"):
        load_adapter(backbone, tmp_path)
