"""What the first batch shows about a model, and how far hidden states may differ."""

import copy
import random

import numpy as np
import pytest
import torch
import transformers as t
from architectures import ARCHITECTURES, DECODER, NO_DROPOUT
from models import adamw, tiny_bert
from peft import LoraConfig, get_peft_model
from prefixes import STEPS, count_runs, epoch, losses_of, upper, upper_bert
from torch import nn

from weightlora import PrefixCache
from weightlora.errors import ModelError
from weightlora.prefix.trial import REPEATS, distance, rounding

LAYERS = {"num_hidden_layers": 4}
PHI = {"resid_pdrop": 0.0, "attention_dropout": 0.0, "pad_token_id": 0}


def mixtral(**settings) -> nn.Module:
    return t.MixtralForCausalLM(t.MixtralConfig(**(DECODER | LAYERS | settings), num_local_experts=4))


def phi(rate: float) -> nn.Module:
    shape = {name: value for name, value in DECODER.items() if name != "num_key_value_heads"}
    return t.PhiForCausalLM(t.PhiConfig(**(shape | LAYERS | PHI), embd_pdrop=rate))


def phimoe() -> nn.Module:
    return t.PhimoeForCausalLM(t.PhimoeConfig(**(DECODER | LAYERS), num_local_experts=4))


def bart(**settings) -> nn.Module:
    shape = {"d_model": 16, "decoder_layers": 4, "decoder_attention_heads": 2, "decoder_ffn_dim": 24, "vocab_size": 50}
    off = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    return t.BartForCausalLM(t.BartConfig(**shape, **off, max_position_embeddings=32, **settings))


def gemma4(shared: int = 0) -> nn.Module:
    shape = {"head_dim": 8, "global_head_dim": 8, "vocab_size_per_layer_input": 50, "hidden_size_per_layer_input": 8}
    kinds = {"layer_types": ["sliding_attention", "full_attention"] * 3, "sliding_window": 16, "num_hidden_layers": 6}
    return t.Gemma4ForCausalLM(t.Gemma4TextConfig(**(DECODER | shape | kinds), num_kv_shared_layers=shared))


def refused(model: nn.Module, directory, message: str, **how) -> None:
    """At the first batch, and before anything is kept."""
    with PrefixCache(model, directory, **how) as cache:
        with pytest.raises(ModelError, match=message) as error:
            losses_of(model, 1, causal=True)
        assert (cache.fills, cache.reads, cache.nbytes) == (0, 0, 0)
    assert str(error.value).endswith("leave the prefix cache out.") and "\n" not in str(error.value)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("kind", ["router noise", "experts drawn", "dropout registered after the blocks"])
def test_random_numbers_below_are_refused_whatever_their_name(kind, autocast, tmp_path):
    torch.manual_seed(0)
    base = {
        "router noise": lambda: mixtral(router_jitter_noise=0.1),
        "experts drawn": phimoe,
        "dropout registered after the blocks": lambda: phi(0.1),
    }[kind]()
    model = upper(base, task_type="CAUSAL_LM")
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        refused(
            model, tmp_path, r"^the hidden states at block 2 differ by 0\.\d+ of their size between two passes over"
        )


@pytest.mark.parametrize(
    "drawn", ["Python", "NumPy", "seldom, Python", "seldom, NumPy", "of its own", "seldom, of its own", "a state"]
)
def test_what_torch_does_not_draw_below_is_refused_at_the_first_batch_too(drawn, tmp_path):
    random.seed(0)
    np.random.seed(0)
    model = upper_bert()
    block: nn.Module = model.get_base_model().bert.encoder.layer[0]
    block.own, block.passes = random.Random(0), 0
    forward = block.forward

    def noisy(hidden, *args, **kwargs):
        block.passes += 1
        scale = {
            "Python": random.random,
            "NumPy": np.random.random,
            "seldom, Python": lambda: float(random.random() < 0.5),
            "seldom, NumPy": lambda: float(np.random.random() < 0.5),
            "of its own": block.own.random,
            "seldom, of its own": lambda: float(block.own.random() < 0.3),
            "a state": lambda: block.passes,
        }[drawn]()
        return forward(hidden + scale * hidden.roll(1, -1), *args, **kwargs)

    block.forward = noisy
    message = r"^the hidden states at block 2 differ by 0\.\d+ of their size between two passes over the same batch\."
    with PrefixCache(model, tmp_path), pytest.raises(ModelError, match=message):
        losses_of(model, 1)


class Own(random.Random):
    def __deepcopy__(self, memo):
        raise TypeError("no copies")


@pytest.mark.parametrize(
    "own", [Own(0), random.SystemRandom(), np.random.default_rng(0), np.random.RandomState(0), torch.Generator()]
)
def test_generators_from_which_nothing_is_drawn_do_no_harm(own, tmp_path):
    model = upper_bert()
    model.get_base_model().bert.encoder.layer[0].own = own
    before = np.random.get_bit_generator()
    np.random.set_bit_generator(np.random.PCG64(0))  # whose state has another form
    try:
        with PrefixCache(model, tmp_path) as cache:
            losses_of(model, 2)
    finally:
        np.random.set_bit_generator(before)
    assert cache.reads == STEPS


def test_a_block_without_parameters_may_be_the_first_that_runs(tmp_path):
    base = tiny_bert(4)
    base.bert.encoder.layer.append(Passing())
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["pooler.dense"], task_type="SEQ_CLS"))
    expected = losses_of(copy.deepcopy(model))
    with PrefixCache(model, tmp_path) as cache:
        assert losses_of(model) == pytest.approx(expected, abs=1e-5) and cache.reads == 2 * STEPS
    assert cache.first == 4


class Passing(nn.Module):
    def forward(self, hidden, *args, **kwargs):
        return hidden


def test_dropout_that_is_registered_after_the_blocks_is_off_below_the_cut_only(tmp_path):
    torch.manual_seed(0)
    model = upper(phi(0.1), task_type="CAUSAL_LM")
    plain = copy.deepcopy(model)
    plain.get_base_model().model.embed_dropout.p = 0.0
    expected = losses_of(plain, causal=True)
    with PrefixCache(model, tmp_path, prefix_dropout="off") as cache:
        assert losses_of(model, causal=True) == pytest.approx(expected, abs=1e-5) and cache.reads == 2 * STEPS
        assert model.get_base_model().model.embed_dropout.training


def test_random_numbers_that_are_drawn_and_not_used_do_no_harm(tmp_path):
    model = upper(bart(), task_type="CAUSAL_LM")
    with PrefixCache(model, tmp_path) as cache:
        count_runs(cache._cut.blocks[0], lambda: torch.rand([]))  # as for a layerdrop of 0
        runs = count_runs(cache._cut.blocks[1])
        losses_of(model, causal=True)
    trial = REPEATS + 2  # also one in evaluation mode, one on other tokens
    assert cache.reads == 2 * STEPS and len(runs) == STEPS + 2 * trial + 2


def test_the_trial_leaves_the_random_numbers_and_gradients_as_they_are(tmp_path):
    torch.manual_seed(0)
    model = upper(mixtral(), task_type="CAUSAL_LM", lora_dropout=0.5)
    plain, batch = copy.deepcopy(model), next(iter(epoch(0, causal=True)))

    def step(model) -> tuple:
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16):
            model.train()(**batch).loss.backward()
        gradients = [p.grad for p in model.parameters() if p.requires_grad]
        return torch.get_rng_state(), *gradients

    expected = step(plain)
    with PrefixCache(model, tmp_path):
        found = step(model)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_parameter_that_trains_and_is_registered_after_the_blocks_is_refused_by_name(tmp_path):
    model = upper(bart(), task_type="CAUSAL_LM", modules_to_save=["layernorm_embedding"])
    refused(
        model, tmp_path / "bart", r"^layernorm_embedding\.modules_to_save\.default\.\w+ of BartDecoder trains, and"
    )
    base = gemma4()
    names = [
        n for n, m in base.named_modules() if n.endswith("per_layer_model_projection") or n.endswith("5.mlp.up_proj")
    ]
    model = get_peft_model(base, LoraConfig(r=2, target_modules=names, init_lora_weights=False, task_type="CAUSAL_LM"))
    refused(
        model, tmp_path / "gemma", r"^per_layer_model_projection\.lora_[AB]\.default\.weight of Gemma4TextModel trains"
    )
    base = ARCHITECTURES["DeBERTa-v2 and v3"].build()
    model = upper(base, 1, task_type="SEQ_CLS")
    model.get_base_model().deberta.encoder.rel_embeddings.requires_grad_(True)
    for module in model.modules():
        if hasattr(module, "p"):
            module.p = 0.0
    with (
        PrefixCache(model, tmp_path / "deberta", prefix_dropout="off"),
        pytest.raises(ModelError, match=r"^encoder\.rel_embeddings\.weight of DebertaV2Model trains, and the bloc"),
    ):
        losses_of(model, 1)


def test_a_last_norm_that_trains_is_above_the_blocks(tmp_path):
    shape = DECODER | LAYERS
    model = upper(t.LlamaForCausalLM(t.LlamaConfig(**shape)), task_type="CAUSAL_LM", modules_to_save=["model.norm"])
    expected = losses_of(copy.deepcopy(model), causal=True)
    with PrefixCache(model, tmp_path) as cache:
        assert losses_of(model, causal=True) == pytest.approx(expected, abs=1e-5) and cache.reads == 2 * STEPS


def test_a_norm_beside_the_blocks_that_trains_and_runs_after_them(tmp_path):
    shape = (
        {"vocab_size": 50, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24} | NO_DROPOUT | LAYERS
    )
    config = t.EsmConfig(**shape, max_position_embeddings=40, pad_token_id=0, position_embedding_type="rotary")
    model = upper(t.EsmForSequenceClassification(config), task_type="SEQ_CLS")
    model.get_base_model().esm.encoder.emb_layer_norm_after.requires_grad_(True)
    expected = losses_of(copy.deepcopy(model))
    with PrefixCache(model, tmp_path) as cache:
        assert losses_of(model) == pytest.approx(expected, abs=1e-5) and cache.reads == 2 * STEPS


def test_blocks_that_hand_on_more_than_hidden_states_are_refused(tmp_path):
    model = upper(gemma4(shared=2), 4, task_type="CAUSAL_LM")
    message = (
        r"^the output of Gemma4TextModel is not the same without the blocks below block 4 \(KeyError: 'sliding_att"
    )
    refused(model, tmp_path / "above", message)
    model = upper(gemma4(shared=2), 2, task_type="CAUSAL_LM").double()
    other = copy.deepcopy(model)
    sgd, of_other = (torch.optim.SGD([p for p in m.parameters() if p.requires_grad], lr=0.1) for m in (model, other))
    expected = losses_of(other, optimizer=of_other, causal=True)
    with PrefixCache(model, tmp_path / "below") as cache:
        assert losses_of(model, optimizer=sgd, causal=True) == pytest.approx(expected, abs=1e-5)
    assert cache.reads == 2 * STEPS


@pytest.mark.parametrize("how", ["autocast", "bfloat16"])
@pytest.mark.parametrize("kind", ["Llama", "Mixtral", "BERT"])
def test_batches_of_other_shapes_differ_by_less_than_rounding_allows(kind, how, tmp_path):
    shape = DECODER | {"num_hidden_layers": 12}
    base = {
        "Llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**shape)),
        "Mixtral": lambda: t.MixtralForCausalLM(t.MixtralConfig(**shape, num_local_experts=4)),
        "BERT": lambda: t.BertForTokenClassification(t.BertConfig(**shape, **NO_DROPOUT)),
    }[kind]
    torch.manual_seed(0)
    model = upper(base(), 7).to(torch.bfloat16 if how == "bfloat16" else torch.float32)
    optimizer = adamw(model)
    with PrefixCache(model, tmp_path) as cache, torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        for number in range(6):
            for batch in epoch(number, causal=True):
                labels = batch["labels"].clamp_max(1) if kind == "BERT" else batch["labels"]
                model.train()(**(batch | {"labels": labels})).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
    assert cache.reads == 5 * STEPS


def test_the_distance_is_over_all_tokens_and_a_few_roundings_are_allowed():
    states = torch.ones(3, 4)
    assert distance(states, states) == 0 and distance(states, states * 1.1) == pytest.approx(0.1)
    assert distance(states, torch.cat([states[:2], states[2:] * 4])) == pytest.approx(3**0.5)
    assert rounding(torch.bfloat16, None) == 4 * 2**-7 and rounding(torch.float32, torch.bfloat16) == 4 * 2**-7
    assert rounding(torch.float32, None) == 3e-4
