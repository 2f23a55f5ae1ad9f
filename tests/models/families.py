"""Tiny models built from a config, one line per family. Adding a family is adding a line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import transformers as t
from torch import Tensor

VOCAB = 60
SMALL = {
    "vocab_size": VOCAB,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
}
DECODER = {
    **SMALL,
    "num_key_value_heads": 1,
    "head_dim": 12,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
NO_HEAD_DIM = {name: value for name, value in DECODER.items() if name != "head_dim"}
T5 = {"vocab_size": VOCAB, "d_model": 24, "d_kv": 12, "d_ff": 40, "num_layers": 3, "num_heads": 2}
BART = {
    "vocab_size": VOCAB,
    "d_model": 24,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 64,
}


@dataclass(frozen=True)
class Family:
    """``packed``: read without padding. ``single``: one by one.

    ``final_norm``: the last layer is not the last block's output.
    """

    config: Callable[[], t.PreTrainedConfig]
    packed: bool
    single: bool = False
    final_norm: bool = False
    causal: bool = False
    side: str = "encoder"


FAMILIES: dict[str, Family] = {
    "bert": Family(lambda: t.BertConfig(**SMALL), packed=True),
    "roberta": Family(lambda: t.RobertaConfig(**SMALL), packed=True),
    "distilbert": Family(
        lambda: t.DistilBertConfig(vocab_size=VOCAB, dim=24, n_layers=3, n_heads=2, hidden_dim=40), packed=True
    ),
    "albert": Family(lambda: t.AlbertConfig(**SMALL, embedding_size=12), packed=True),
    "electra": Family(lambda: t.ElectraConfig(**SMALL, embedding_size=12), packed=True),
    "deberta-v2": Family(
        lambda: t.DebertaV2Config(**SMALL, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8),
        packed=False,
    ),
    "modernbert": Family(
        lambda: t.ModernBertConfig(**SMALL, local_attention=6, pad_token_id=0, cls_token_id=1, sep_token_id=2),
        packed=False,
        final_norm=True,
    ),
    "fnet": Family(
        lambda: t.FNetConfig(
            vocab_size=VOCAB, hidden_size=24, num_hidden_layers=3, intermediate_size=40, max_position_embeddings=64
        ),
        packed=False,
        single=True,  # it mixes all tokens, padding too
    ),
    "mpnet": Family(lambda: t.MPNetConfig(**SMALL), packed=False),
    "gpt2": Family(
        lambda: t.GPT2Config(
            vocab_size=VOCAB, n_embd=24, n_layer=3, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=2
        ),
        packed=True,
        final_norm=True,
        causal=True,
    ),
    "gpt-neox": Family(lambda: t.GPTNeoXConfig(**SMALL), packed=True, final_norm=True, causal=True),
    "opt": Family(
        lambda: t.OPTConfig(
            vocab_size=VOCAB,
            hidden_size=24,
            num_hidden_layers=3,
            num_attention_heads=2,
            ffn_dim=40,
            max_position_embeddings=64,
            word_embed_proj_dim=24,
        ),
        packed=True,
        final_norm=True,
        causal=True,
    ),
    "llama": Family(lambda: t.LlamaConfig(**DECODER), packed=True, final_norm=True, causal=True),
    "mistral": Family(lambda: t.MistralConfig(**DECODER, sliding_window=6), packed=True, final_norm=True, causal=True),
    "qwen2": Family(
        lambda: t.Qwen2Config(**NO_HEAD_DIM),
        packed=True,
        final_norm=True,
        causal=True,
    ),
    "qwen3": Family(lambda: t.Qwen3Config(**DECODER), packed=True, final_norm=True, causal=True),
    "gemma2": Family(
        lambda: t.Gemma2Config(**DECODER, sliding_window=6, query_pre_attn_scalar=12),
        packed=False,
        final_norm=True,
        causal=True,
    ),
    "gemma3": Family(
        lambda: t.Gemma3TextConfig(**DECODER, sliding_window=6, query_pre_attn_scalar=12),
        packed=True,
        final_norm=True,
        causal=True,
    ),
    "phi3": Family(
        lambda: t.Phi3Config(**NO_HEAD_DIM),
        packed=True,
        final_norm=True,
        causal=True,
    ),
    "mixtral": Family(
        lambda: t.MixtralConfig(**DECODER, num_local_experts=3, num_experts_per_tok=2),
        packed=True,
        final_norm=True,
        causal=True,
    ),
    "qwen3-next": Family(
        lambda: t.Qwen3NextConfig(
            **DECODER,
            linear_num_key_heads=2,
            linear_num_value_heads=2,
            linear_key_head_dim=8,
            linear_value_head_dim=8,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=16,
            layer_types=["linear_attention", "full_attention", "linear_attention"],
        ),
        packed=False,
        final_norm=True,
        causal=True,
    ),
    "gpt-oss": Family(
        lambda: t.GptOssConfig(**DECODER, sliding_window=6, num_local_experts=3, num_experts_per_tok=2),
        packed=False,
        final_norm=True,
        causal=True,
    ),
    "granite-hybrid": Family(
        lambda: t.GraniteMoeHybridConfig(
            **NO_HEAD_DIM,
            num_local_experts=3,
            num_experts_per_tok=2,
            shared_intermediate_size=16,
            mamba_n_heads=4,
            mamba_d_head=12,
            mamba_d_state=8,
            mamba_n_groups=1,
            mamba_chunk_size=8,
            layer_types=["mamba", "attention", "mamba"],
        ),
        packed=False,
        final_norm=True,
        causal=True,
    ),
    "olmo2": Family(lambda: t.Olmo2Config(**NO_HEAD_DIM), packed=True, final_norm=True, causal=True),
    "smollm3": Family(lambda: t.SmolLM3Config(**NO_HEAD_DIM), packed=True, final_norm=True, causal=True),
    "llama4": Family(
        lambda: t.Llama4TextConfig(**DECODER, intermediate_size_mlp=40, num_local_experts=3, attention_chunk_size=6),
        packed=True,
        final_norm=True,
        causal=True,
    ),
    "lfm2": Family(
        lambda: t.Lfm2Config(**NO_HEAD_DIM, layer_types=["conv", "full_attention", "conv"]),
        packed=False,
        final_norm=True,
        causal=True,
    ),
    "mamba2": Family(
        lambda: t.Mamba2Config(
            vocab_size=VOCAB,
            hidden_size=24,
            num_hidden_layers=3,
            state_size=8,
            num_heads=4,
            head_dim=12,
            n_groups=1,
            chunk_size=8,
        ),
        packed=False,
        final_norm=True,
        causal=True,
    ),
    "mamba": Family(
        lambda: t.MambaConfig(vocab_size=VOCAB, hidden_size=24, num_hidden_layers=3, state_size=4),
        packed=False,
        final_norm=True,
        causal=True,
    ),
    "t5": Family(lambda: t.T5Config(**T5), packed=False, final_norm=True),
    "bart": Family(lambda: t.BartConfig(**BART), packed=False),
    "t5-decoder": Family(
        lambda: t.T5Config(**T5, decoder_start_token_id=0), packed=False, final_norm=True, causal=True, side="decoder"
    ),
    "bart-decoder": Family(lambda: t.BartConfig(**BART), packed=False, causal=True, side="decoder"),
}


def build(name: str, *, seed: int = 0, **changes: object) -> t.PreTrainedModel:
    """The family's model with random weights, in float32."""
    torch.manual_seed(seed)
    config = FAMILIES[name].config()
    for field, value in changes.items():
        setattr(config, field, value)
    model = t.AutoModel.from_config(config).eval()
    # Freshly made norms are all ones and biases all zero: shake them, or a missing norm would go unseen.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def reference_states(model: t.PreTrainedModel, side: str, row: list[int]) -> list[Tensor]:
    """transformers' own hidden states of one text alone: no batch, no padding, no code of ours."""
    ids = torch.tensor([row])
    with torch.inference_mode():
        if not model.config.is_encoder_decoder:
            return [states[0] for states in model(input_ids=ids, output_hidden_states=True).hidden_states]
        if side == "encoder":
            return [states[0] for states in model.get_encoder()(input_ids=ids, output_hidden_states=True).hidden_states]
        shifted = torch.tensor([[model.config.decoder_start_token_id, *row[:-1]]])
        output = model(input_ids=ids, decoder_input_ids=shifted, output_hidden_states=True)
        return [states[0] for states in output.decoder_hidden_states]
