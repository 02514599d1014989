"""The same training with the lower blocks run once for each example, and what ends or stops the cache."""

import copy
import math
import random
import warnings
from typing import Any

import pytest
import torch
import transformers as t
from architectures import DECODER, ENCODER, NO_DROPOUT
from models import adamw, tiny_bert
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from prefixes import EXAMPLES, STEPS, count_runs, epoch, examples, losses_of, losses_on, padded, upper, upper_bert
from torch import nn

from weightlora import PrefixCache
from weightlora.errors import ConfigError, DataError, ModelError, TrainingError
from weightlora.prefix.cut import find_cut

LAYERS = {"num_hidden_layers": 4}
KINDS = {
    "BERT": (t.BertForSequenceClassification, t.BertConfig, ENCODER | NO_DROPOUT, "SEQ_CLS"),
    "RoBERTa": (
        t.RobertaForSequenceClassification,
        t.RobertaConfig,
        ENCODER | NO_DROPOUT | {"pad_token_id": 0},
        "SEQ_CLS",
    ),
    "DeBERTa-v3": (
        t.DebertaV2ForSequenceClassification,
        t.DebertaV2Config,
        ENCODER
        | NO_DROPOUT
        | {
            "relative_attention": True,
            "position_buckets": 8,
            "pos_att_type": ["p2c", "c2p"],
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_biased_input": False,
            "type_vocab_size": 0,
        },
        "SEQ_CLS",
    ),
    "ModernBERT": (
        t.ModernBertForSequenceClassification,
        t.ModernBertConfig,
        ENCODER | {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3},
        "SEQ_CLS",
    ),
    "GPT-2": (
        t.GPT2LMHeadModel,
        t.GPT2Config,
        {"vocab_size": 50, "n_positions": 32, "n_embd": 16, "n_head": 2, "bos_token_id": 2, "eos_token_id": 3}
        | {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
        "CAUSAL_LM",
    ),
    "Llama": (t.LlamaForCausalLM, t.LlamaConfig, DECODER, "CAUSAL_LM"),
    "Qwen3": (t.Qwen3ForCausalLM, t.Qwen3Config, DECODER | {"head_dim": 8}, "CAUSAL_LM"),
    "Gemma 3, with two kinds of masks": (
        t.Gemma3ForCausalLM,
        t.Gemma3TextConfig,
        DECODER
        | {"head_dim": 8, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"] * 2}
        | {"pad_token_id": 0},
        "CAUSAL_LM",
    ),
}


def build(kind: str) -> nn.Module:
    model, config, settings, task = KINDS[kind]
    torch.manual_seed(0)
    return upper(model(config(**(settings | LAYERS))), task_type=task)


def state_of(model: nn.Module) -> list:
    """What a guest might leave behind."""
    return [
        (
            name,
            type(module),
            module.training,
            [*module._forward_hooks],
            [*module._forward_pre_hooks],
            "forward" in vars(module),
        )
        for name, module in model.named_modules()
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_the_training_is_the_same_and_lower_blocks_run_once_for_each_example(kind, tmp_path):
    model = build(kind)
    plain, causal = copy.deepcopy(model), KINDS[kind][3] == "CAUSAL_LM"
    expected = losses_of(plain, causal=causal)
    before = state_of(model)
    with PrefixCache(model, tmp_path) as cache:
        runs = count_runs(cache._cut.blocks[1])
        found = losses_of(model, causal=causal)
        del cache._cut.blocks[1].forward
    assert found == pytest.approx(expected, abs=1e-5)
    assert (cache.first, cache.fills, cache.reads) == (2, STEPS, 2 * STEPS)
    assert len(runs) == STEPS + 2 * 4 + 2, "and four times in each of two trials, and once in each pass to compare"
    assert state_of(model) == before
    bytes_of_all = sum(map(len, examples())) * 16 * 4
    assert (tmp_path / "block-2/process-0/states.bin").stat().st_size == bytes_of_all


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("kind", ["BERT", "Llama"])
def test_under_gradient_checkpointing_too(kind, reentrant, tmp_path):
    model = build(kind)
    model.get_base_model().gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    plain, causal = copy.deepcopy(model), kind == "Llama"
    expected = losses_of(plain, causal=causal)
    with PrefixCache(model, tmp_path) as cache:
        assert losses_of(model, causal=causal) == pytest.approx(expected, abs=1e-5)
    assert cache.reads == 2 * STEPS
    moved = [(a - b).abs().max() for a, b in zip(model.parameters(), plain.parameters(), strict=True)]
    assert max(moved) < 1e-5


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_frequencies_that_depend_on_the_length_of_the_batch(kind, tmp_path):
    rope = {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0}
    if kind == "longrope":
        rope |= {"short_factor": [1.0] * 4, "long_factor": [8.0] * 4, "original_max_position_embeddings": 8}
    shape = DECODER | LAYERS | {"rope_parameters": rope, "max_position_embeddings": 8, "initializer_range": 0.5}
    torch.manual_seed(0)
    model = upper(t.LlamaForCausalLM(t.LlamaConfig(**shape)), task_type="CAUSAL_LM")
    plain = copy.deepcopy(model)
    rows = [torch.arange(4, 4 + length) for length in (5, 9, 10, 7)]
    batches = [
        padded([rows[a], rows[b]], causal=True) for a, b in ((0, 1), (2, 3), (0, 2), (1, 3), (0, 3), (1, 2)) * 3
    ]

    def train(model) -> list[float]:
        model.train()
        return [model(**batch).loss.item() for batch in batches]

    expected = train(plain)
    with PrefixCache(model, tmp_path) as cache:
        assert train(model) == pytest.approx(expected, abs=1e-6) and cache.reads > 1


def test_left_padding_in_a_causal_model_is_read(tmp_path):
    model = build("Llama")
    plain, rows = copy.deepcopy(model), examples()
    batches = [padded([*rows[place : place + 3], torch.arange(4, 16)], True, left=True) for place in (0, 3)] * 3

    expected = losses_on(plain, batches)
    with PrefixCache(model, tmp_path) as cache:
        assert losses_on(model, batches) == pytest.approx(expected, abs=1e-5) and (cache.fills, cache.reads) == (2, 4)


def test_dropout_below_the_cut_is_off_and_above_it_draws_the_same_numbers(tmp_path):
    model = upper_bert(dropout=0.1)
    plain = copy.deepcopy(model)
    bert = plain.get_base_model().bert
    for part in (bert.embeddings, *bert.encoder.layer[:2]):
        for module in part.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    torch.manual_seed(7)
    expected = losses_of(plain)
    torch.manual_seed(7)
    with PrefixCache(model, tmp_path, prefix_dropout="off") as cache:
        found = losses_of(model)
        assert all(module.training for module in model.modules())
    assert found == pytest.approx(expected, abs=1e-5) and cache.reads == 2 * STEPS


def test_a_second_cache_goes_on_with_what_the_first_one_kept(tmp_path):
    model, optimizer = upper_bert(), None
    plain = copy.deepcopy(model)
    expected = losses_of(plain, epochs=2)
    optimizer = adamw(model)
    with PrefixCache(model, tmp_path):
        found = losses_of(model, epochs=1, optimizer=optimizer)
    with PrefixCache(model, tmp_path) as cache:
        found += losses_of(model, epochs=2, start=1, optimizer=optimizer)
    assert found == pytest.approx(expected, abs=1e-5) and (cache.fills, cache.reads) == (0, STEPS)


def test_evaluation_reads_and_keeps_nothing(tmp_path):
    model, new = upper_bert(), padded([torch.arange(5, 15)])
    with PrefixCache(model, tmp_path) as cache:
        losses_of(model, epochs=2)
        kept, runs = cache.nbytes, count_runs(cache._cut.blocks[0])
        model.eval()
        with torch.no_grad():
            read = [model(**batch).logits for batch in epoch(5)]
            assert runs == []
            model(**new)
        assert len(runs) == 1 and cache.nbytes == kept and (cache.fills, cache.reads) == (STEPS, STEPS)
    with torch.no_grad():
        for logits, batch in zip(read, epoch(5), strict=True):
            torch.testing.assert_close(logits, model(**batch).logits, atol=1e-5, rtol=1e-5)


def test_a_damaged_entry_is_computed_again(tmp_path):
    model = upper_bert()
    plain = copy.deepcopy(model)
    expected, optimizer = losses_of(plain), adamw(model)
    with PrefixCache(model, tmp_path):
        found = losses_of(model, epochs=1, optimizer=optimizer)
    path = tmp_path / "block-2/process-0/states.bin"
    bits = bytearray(path.read_bytes())
    bits[100] ^= 1
    path.write_bytes(bits)
    with PrefixCache(model, tmp_path) as cache, pytest.warns(UserWarning, match="states.bin is damaged"):
        found += losses_of(model, start=1, optimizer=optimizer)
    assert found == pytest.approx(expected, abs=1e-5)
    assert (cache.fills, cache.reads) == (1, 2 * STEPS - 1)


def test_what_changes_below_the_cut_ends_the_training_by_name(tmp_path):
    model = upper_bert()
    with PrefixCache(model, tmp_path) as cache:
        losses_of(model, epochs=2)
        with torch.no_grad():
            cache._cut.blocks[0].output.dense.weight.mul_(2)
        with pytest.raises(
            TrainingError, match=r"^the hidden states at block 2 differ from those in .*block-2 by 0\.0"
        ):
            losses_of(model, epochs=3, start=2)


def test_autocast_has_examples_of_its_own_and_its_own_rounding(tmp_path):
    model = upper_bert()
    with PrefixCache(model, tmp_path) as cache:
        losses_of(model, epochs=1)
        with torch.autocast("cpu", torch.bfloat16):
            found = losses_of(model, epochs=2)
        assert (cache.fills, cache.reads) == (2 * STEPS, STEPS) and all(map(math.isfinite, found))


def test_a_cache_of_another_model_is_refused(tmp_path):
    model = upper_bert()
    with PrefixCache(model, tmp_path):
        losses_of(model, epochs=1)
    with torch.no_grad():
        model.get_base_model().bert.embeddings.word_embeddings.weight[3, 3] += 1e-3
    with pytest.raises(DataError, match=r"block-2 has hidden states of another model \(its weights differ\): give an"):
        PrefixCache(model, tmp_path)
    half = upper_bert().to(torch.bfloat16)
    with pytest.raises(DataError, match=r"another model \(its dtype and weights differ\)"):
        PrefixCache(half, tmp_path)


def test_another_cut_of_the_same_model_has_a_place_of_its_own(tmp_path):
    for first in (2, 3, 2):
        with PrefixCache(upper_bert(first), tmp_path) as cache:
            losses_of(upper_bert(first), epochs=1)
    assert cache.first == 2 and sorted(path.name for path in tmp_path.iterdir()) == ["block-2", "block-3"]


def test_block_0_that_trains_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"^block 0 trains, so nothing below it is frozen"):
        PrefixCache(upper_bert(0), tmp_path)


@pytest.mark.parametrize("early", [False, True])
def test_examples_that_never_come_again_switch_it_off(early, tmp_path):
    model = upper_bert()
    model.train()
    batches = [torch.randint(4, 50, (4, 8), generator=torch.Generator().manual_seed(step)) for step in range(7)]
    if early:
        batches[1] = batches[0]
    with (
        PrefixCache(model, tmp_path, examples=EXAMPLES) as cache,
        pytest.warns(UserWarning, match="0 of 12 rows of an epoch came again: packing, augmentation or left") as told,
    ):
        for rows in batches:
            model(input_ids=rows)
        assert len(told) == 1 and (cache.fills, cache.reads) == (6 - early, early)


def test_an_epoch_that_began_before_the_cache_is_not_a_whole_one(tmp_path):
    model = upper_bert()
    with PrefixCache(model, tmp_path) as cache, warnings.catch_warnings():
        warnings.simplefilter("error")
        model.train()(**next(iter(epoch(0))))
        for number in range(1, 4):
            cache.end_epoch()
            losses_of(model, number + 1, start=number)
        assert cache.reads >= STEPS


def test_a_call_without_examples_says_why_at_once_and_only_once(tmp_path):
    model = build("Llama")
    message = r"^the prefix cache is not used for some batches, because use_cache=True may change what the bl"
    with PrefixCache(model, tmp_path) as cache, pytest.warns(UserWarning, match=message) as told:
        for number, batch in enumerate([*epoch(0, causal=True)] * 2):
            model.train()(**batch, use_cache=number or True)  # in each batch another value
        assert len(told) == 1 and (cache.fills, cache.reads) == (0, 0)


def test_a_cache_that_is_full_says_so_once_and_keeps_to_its_size(tmp_path):
    model = upper_bert()
    limit = sum(map(len, examples())) * 64 // 2
    with PrefixCache(model, tmp_path, limit) as cache, pytest.warns(UserWarning, match="is full before") as told:
        expected = losses_of(copy.deepcopy(model))  # a copy is a plain model
        assert cache.nbytes == 0 and losses_of(model) == expected
        assert len(told) == 1 and 0 < cache.nbytes <= limit


def test_it_keeps_to_its_size_beside_what_another_number_of_processes_has_left(tmp_path):
    model = upper_bert()
    with PrefixCache(model, tmp_path) as cache:
        losses_of(model)
    folder, size = cache.directory / "process-0", (cache.directory / "process-0/states.bin").stat().st_size
    index = folder / "index.jsonl"
    index.write_text("".join(index.read_text().splitlines(keepends=True)[:1]))  # the others are met again
    folder.rename(cache.directory / "process-3")
    with PrefixCache(model, tmp_path, size + 1) as cache, pytest.warns(UserWarning, match="full"):
        losses_of(model)
    assert sum(path.stat().st_size for path in tmp_path.glob("**/*.bin")) <= size + 1


def test_a_loss_that_depends_on_padding_switches_it_off_before_anything_is_read(tmp_path):
    model = build("Llama")
    batches = [batch | {"labels": batch["input_ids"]} for batch in epoch(0)] * 2
    with PrefixCache(model, tmp_path) as cache, pytest.warns(UserWarning, match="depends on hidden states of paddi"):
        model.train()
        for batch in batches:
            model(**batch).loss.backward()
        assert cache.reads == 0


def test_one_batch_whose_loss_depends_on_padding_switches_it_off(tmp_path):
    """The last of an epoch; the others have padding, too."""
    batches = [*epoch(0, causal=True)]
    batches[-1] = batches[-1] | {"labels": batches[-1]["input_ids"]}
    assert all((batch["attention_mask"] == 0).any() for batch in batches)
    model = build("Llama")
    expected = losses_on(copy.deepcopy(model), batches * 3)
    with PrefixCache(model, tmp_path) as cache, pytest.warns(UserWarning, match="depends on hidden states of paddi"):
        found = losses_on(model, batches * 3)
        assert cache.reads == 0
    assert found == pytest.approx(expected, abs=1e-6)


def test_the_first_batch_leaves_no_trace_in_running_statistics(tmp_path):
    def normed() -> nn.Module:
        model = upper_bert()
        pooler = find_cut(model).backbone.pooler
        pooler.dense = nn.Sequential(pooler.dense, nn.BatchNorm1d(16))
        return model

    plain, cached = normed(), normed()
    losses_of(plain)
    with PrefixCache(cached, tmp_path) as cache:
        losses_of(cached)
        assert cache.reads > 0
    for (name, one), other in zip(plain.named_buffers(), cached.buffers(), strict=True):
        assert torch.allclose(one.float(), other.float(), atol=1e-5), name


def test_a_gate_that_opens_while_it_trains_shows_what_upper_blocks_need(tmp_path):
    """At the first batch it is 0, and what comes through it is not seen."""
    model = build("Llama").train()
    lower, *_, last = find_cut(model).backbone.layers
    before, after, left = type(lower).forward, type(last).forward, []

    def leave(*args, **kwargs):
        left[:] = [before(lower, *args, **kwargs)]
        return left[0]

    lower.forward = leave
    last.gate = nn.Parameter(torch.zeros(()))
    last.forward = lambda *args, **kwargs: after(last, *args, **kwargs) + last.gate * left[0][:, :1].detach()
    batches = [batch for number in range(3) for batch in epoch(number, causal=True)]
    with PrefixCache(model, tmp_path) as cache, pytest.warns(UserWarning, match="need more than the hidden states of"):
        losses_on(model, batches, torch.optim.AdamW([last.gate], lr=0.5))
        assert cache.reads == 0 and float(last.gate.abs()) > 0.1


def test_labels_that_change_to_padding_later_end_the_training(tmp_path):
    model = build("Llama")
    with PrefixCache(model, tmp_path):
        losses_of(model, epochs=2, causal=True)
        with pytest.raises(
            TrainingError,
            match=r"^the loss depends on hidden states of padding.*train again: batches with padding were read",
        ):
            for batch in epoch(3, causal=True):
                model(**(batch | {"labels": batch["input_ids"]})).loss.backward()


def test_padding_that_only_an_evaluation_has_read_has_harmed_no_training(tmp_path):
    model = upper_bert()
    backbone, batches = find_cut(model).backbone, []
    for batch in epoch(0):
        batches.append({name: value for name, value in batch.items() if name != "labels"})
    with PrefixCache(model, tmp_path) as cache, pytest.warns(UserWarning, match="depends on hidden states of paddi"):
        for batch in (*batches, batches[0]):
            states = backbone.train()(**batch).last_hidden_state
            (states[..., 0] * batch["attention_mask"]).sum().backward()
        with torch.no_grad():
            runs = count_runs(cache._cut.blocks[0])
            for batch in batches:
                backbone.eval()(**batch)
            assert not runs, "they are read"
        backbone.train()(**batches[0]).last_hidden_state[..., 0].sum().backward()


def test_no_padding_is_read_before_it_was_seen_in_a_loss(tmp_path):
    """The first epoch has rows of one length in each batch, the later ones have not."""
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(4, 50, (length,), generator=generator) for length in (5, 5, 9, 9)]

    def batch(*places) -> dict:
        made = padded([rows[place] for place in places], causal=True)
        return made | {"labels": made["input_ids"]}  # also at padded places

    batches = [batch(0, 1), batch(2, 3), *[batch(0, 1), batch(0, 2), batch(1, 3), batch(2, 3)] * 2]
    model = build("Llama")
    expected = losses_on(copy.deepcopy(model), batches)
    with PrefixCache(model, tmp_path) as cache, pytest.warns(UserWarning, match="depends on hidden states of paddi"):
        found = losses_on(model, batches)
        assert cache.reads > 0
    assert found == pytest.approx(expected, abs=1e-5)


def test_evaluation_reads_no_padding_before_training_has_shown_that_it_does_not_count(tmp_path):
    model, rows = upper_bert(), examples()
    with PrefixCache(model, tmp_path) as cache, torch.no_grad():
        with torch.enable_grad():
            losses_on(model, [padded([row]) for row in rows] * 2)
        batch = {name: value for name, value in padded(rows[:4]).items() if name != "labels"}
        backbone = find_cut(model).backbone.eval()
        found = backbone(**batch).last_hidden_state.mean(1)
        assert cache.reads > 0
    torch.testing.assert_close(found, backbone(**batch).last_hidden_state.mean(1), rtol=0, atol=1e-5)


def test_what_a_hook_on_an_upper_block_keeps_is_of_the_pass_that_trains(tmp_path):
    """Such as for distillation: the loss has a term on it."""
    model = build("Llama").train()
    plain = copy.deepcopy(model)

    def gradients(model) -> list:
        kept: list = []
        find_cut(model).backbone.layers[3].mlp.register_forward_hook(lambda *met: kept.append(met[-1]))
        found = []
        for batch in [batch for number in range(3) for batch in epoch(number, causal=True)]:
            loss = model(**batch).loss
            (loss + 50 * (kept[-1] * batch["attention_mask"][..., None]).square().mean()).backward()
            found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
            model.zero_grad()
        return found

    expected = gradients(plain)
    with PrefixCache(model, tmp_path) as cache:
        found = gradients(model)
        assert cache.reads == 2 * STEPS
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_first_batch_leaves_no_trace_in_other_random_numbers_and_on_modules(tmp_path):
    model = build("Llama").train()
    last = find_cut(model).backbone.layers[3]
    plain, last.calls = type(last).forward, 0

    def forward(*args, **kwargs):
        last.calls += 1
        random.random()
        return plain(last, *args, **kwargs)

    last.forward = forward
    random.seed(0)
    expected = [random.random() for _ in range(2)][-1]
    random.seed(0)
    with PrefixCache(model, tmp_path):
        model(**next(iter(epoch(0, causal=True))))
    assert last.calls == 1 and random.random() == expected


def test_a_block_that_changes_what_it_gets_is_cached(tmp_path):
    model = build("Llama")
    block = find_cut(model).backbone.layers[2]
    plain = type(block).forward
    block.forward = lambda hidden, *args, **kwargs: plain(
        block, hidden * 1.5 if hidden.requires_grad else hidden.mul_(1.5), *args, **kwargs
    )
    batches = [padded([row], causal=True) for row in examples()[:STEPS]] * 3  # without padding: it needs no gradient
    state = copy.deepcopy(model.state_dict())
    expected = losses_on(model, batches)
    model.load_state_dict(state)
    with PrefixCache(model, tmp_path) as cache:
        assert losses_on(model, batches) == pytest.approx(expected, abs=1e-5)
        assert cache.reads == 2 * STEPS


def test_a_model_that_is_compiled_later_is_cached_without_being_compiled(tmp_path):
    model = upper_bert(dropout=0.5).train()
    batch = padded(examples()[:2])
    with PrefixCache(model, tmp_path, prefix_dropout="off") as cache:
        compiled, met = torch.compile(model, backend="eager"), []
        find_cut(model).backbone.encoder.layer[2].register_forward_pre_hook(lambda _, args: met.append(args[0]))
        for _ in range(3):
            compiled(**batch)
        assert (cache.fills, cache.reads) == (1, 2)
    torch.testing.assert_close(met[-1], met[-2], rtol=0, atol=1e-6)


@pytest.mark.parametrize("settings", [{"num_hidden_groups": 2}, {"inner_group_num": 2}])
def test_blocks_that_run_more_than_once_switch_it_off(settings, tmp_path):
    torch.manual_seed(0)
    shape = ENCODER | NO_DROPOUT | {"embedding_size": 16, "num_hidden_layers": 4, "classifier_dropout_prob": 0.0}
    base = t.AlbertForSequenceClassification(t.AlbertConfig(**shape, **settings))
    upper_group = "albert_layer_groups.1" if "num_hidden_groups" in settings else "albert_layers.1"
    names = [name for name, module in base.named_modules() if upper_group in name and isinstance(module, nn.Linear)]
    model = get_peft_model(base, LoraConfig(r=2, target_modules=names, init_lora_weights=False, task_type="SEQ_CLS"))
    expected = losses_of(copy.deepcopy(model))
    with (
        PrefixCache(model, tmp_path) as cache,
        pytest.warns(UserWarning, match="block 1 or the one below it runs more"),
    ):
        assert losses_of(model) == expected
    assert cache.reads == 0


def test_another_adapter_below_the_cut_that_is_switched_off_for_some_passes(tmp_path):
    model = build("Llama")
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    model.add_adapter("style", lora)

    def switch(model, *names) -> None:
        model.base_model.set_adapter([*names])
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("default" in name)

    def train(model) -> list[float]:
        """Away from what the model gives without its second adapter."""
        optimizer, found = adamw(model.train()), []
        for number in range(2):
            for batch in epoch(number, causal=True):
                switch(model, "default")
                with torch.no_grad():
                    reference = model(**batch).logits
                switch(model, "default", "style")
                loss = (model(**batch).logits - reference)[batch["labels"] != -100].square().mean()
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                found.append(loss.item())
        return found

    switch(model, "default")
    expected = train(copy.deepcopy(model))
    with PrefixCache(model, tmp_path) as cache:
        assert train(model) == pytest.approx(expected, rel=1e-4)
    assert (cache.fills, cache.reads) == (2 * STEPS, 2 * STEPS)


def styled(**lora) -> nn.Module:
    """A second adapter, which is frozen, on all blocks."""
    model = build("Llama")
    settings = {"r": 2, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False, "task_type": "CAUSAL_LM"}
    model.add_adapter("style", LoraConfig(**settings, **lora))
    model.base_model.set_adapter(["default", "style"])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("default" in name)
    return model


def test_another_scaling_of_a_frozen_adapter_below_the_cut_has_examples_of_its_own(tmp_path):
    def train(model) -> list[float]:
        optimizer, found = adamw(model), []
        for number, scale in enumerate((1.0, 8.0, 1.0)):
            for layer in model.modules():
                if isinstance(layer, LoraLayer) and "style" in layer.scaling:
                    layer.set_scale("style", scale)
            found += losses_of(model, number + 1, number, optimizer, causal=True)
        return found

    model = styled()
    expected = train(copy.deepcopy(model))
    with PrefixCache(model, tmp_path) as cache:
        assert train(model) == pytest.approx(expected, abs=1e-5)
    assert (cache.fills, cache.reads) == (2 * STEPS, STEPS)
    model = styled(use_rslora=True)
    expected = losses_of(copy.deepcopy(model), 1, causal=True)
    with PrefixCache(model, tmp_path) as cache:
        assert losses_of(model, 1, causal=True) == pytest.approx(expected, abs=1e-5)
    assert (cache.fills, cache.reads) == (STEPS, 0)


def test_adapters_that_a_call_names_for_each_row_are_not_those_that_were_kept(tmp_path):
    model, batch = styled(), next(iter(epoch(0, causal=True)))
    with PrefixCache(model, tmp_path):
        losses_of(model, 2, causal=True)
        model.eval()
        found = model(**batch, adapter_names=["__base__"] * 4).logits
    torch.testing.assert_close(found, model(**batch, adapter_names=["__base__"] * 4).logits)


def test_passes_of_a_reference_do_not_count_as_another_epoch(tmp_path):
    model = build("Llama").train()
    with PrefixCache(model, tmp_path) as cache:
        runs = count_runs(cache._cut.blocks[0])
        for number in range(3):
            for batch in epoch(number, causal=True):
                with torch.no_grad(), model.disable_adapter():
                    model(**batch)
                model(**batch).loss.backward()
                model.zero_grad()
    assert (cache.fills, cache.reads) == (STEPS, 5 * STEPS)
    assert len(runs) == STEPS + 1 + 4 + 2, "as without a reference, and the first batch after its own reference"


def test_evaluation_does_not_read_where_the_blocks_below_compute_something_else_in_it(tmp_path):
    """BigBird draws its random blocks anew in training, and has fixed ones in evaluation."""
    torch.manual_seed(0)
    shape = {**ENCODER, **NO_DROPOUT, "num_hidden_layers": 4, "max_position_embeddings": 128, "initializer_range": 0.6}
    sparse = {"attention_type": "block_sparse", "block_size": 4, "num_random_blocks": 1}
    model = upper(t.BigBirdForSequenceClassification(t.BigBirdConfig(**shape, **sparse)), task_type="SEQ_CLS")
    ids = torch.randint(4, 50, (4, 64))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.arange(4) % 2}
    with torch.no_grad():
        expected = model.eval()(**inputs).loss
    with PrefixCache(model.train(), tmp_path) as cache:
        losses_on(model, [inputs] * 3, torch.optim.SGD([torch.zeros(1, requires_grad=True)]))
        assert (cache.fills, cache.reads) == (1, 2)
        with torch.no_grad():
            assert torch.equal(model.eval()(**inputs).loss, expected)


def test_dropout_is_back_below_the_cut_where_the_training_goes_on_without_the_cache(tmp_path):
    model, modes = upper_bert(dropout=0.1), []
    lowest = model.get_base_model().bert.encoder.layer[0].output.dropout
    lowest.register_forward_hook(lambda module, *_: modes.append(module.training))
    with PrefixCache(model, tmp_path, prefix_dropout="off") as cache:
        losses_of(model, 1)
        assert modes and not any(modes)
        model.get_base_model().bert.encoder.layer[1].requires_grad_(True)
        modes.clear()
        with pytest.warns(UserWarning, match="the training goes on without it: something below block 2 trains now"):
            losses_of(model, 2, 1)
    assert modes == [True] * STEPS and cache.reads == 0


def test_a_cache_that_was_left_open_does_not_harm_the_next_training(tmp_path):
    model = upper_bert()
    left = PrefixCache(model, tmp_path)
    left.open()
    losses_of(model, 2)
    torch.manual_seed(1)
    model = get_peft_model(model.unload(), LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS"))
    expected = losses_of(copy.deepcopy(model), 2)
    with pytest.warns(UserWarning, match="something below block 2 trains now"):
        assert losses_of(model, 2) == expected
    left.close()


def test_generation_works_in_the_meantime(tmp_path):
    model = build("Llama")
    prompt = examples()[0][None]
    settings = {"max_new_tokens": 4, "do_sample": False}
    with PrefixCache(model, tmp_path) as cache:
        losses_of(model, epochs=2, causal=True)
        model(input_ids=prompt)
        model.eval()
        found = model.generate(input_ids=prompt, **settings)
        reads = cache.reads
    assert found.tolist() == model.generate(input_ids=prompt, **settings).tolist() and reads >= STEPS


def test_a_call_that_was_read_gives_no_keys_and_values_and_one_that_asks_for_them_runs_all_blocks(tmp_path):
    model, prompt = build("Llama"), examples()[0][None]
    model.train()
    with PrefixCache(model, tmp_path) as cache:
        runs = count_runs(cache._cut.blocks[0])
        outputs = [model(input_ids=prompt) for _ in range(2)]
        losses_of(model, epochs=2, causal=True)
        before = len(runs)
        outputs.append(model(input_ids=prompt))
        assert len(runs) == before
        asked = model(input_ids=prompt, use_cache=True)
        assert len(runs) == before + 1
    given = [[k for k, v in out.items() if v is not None and k in ("cache", "past_key_values")] for out in outputs]
    assert given[0] and not given[2], "the first call runs all blocks, the last one is read"
    assert set(given[0]) <= set(asked.keys())


def test_model_is_whole_again_after_an_error_in_the_loop(tmp_path):
    model = upper_bert()
    before = state_of(model)
    with pytest.raises(ZeroDivisionError), PrefixCache(model, tmp_path):
        model(**next(iter(epoch(0))))
        raise ZeroDivisionError
    assert state_of(model) == before


def test_no_warning_in_a_usual_training(tmp_path):
    model = upper_bert()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with PrefixCache(model, tmp_path, 10**6, examples=EXAMPLES, tokens=120):
            losses_of(model)


def test_a_pooler_that_trains_is_above_the_blocks(tmp_path):
    model = get_peft_model(tiny_bert(4), LoraConfig(target_modules=r".*(3\.output\.dense|pooler\.dense)"))
    with PrefixCache(model, tmp_path) as cache:
        assert cache.first == 3


def test_a_copy_on_disk_is_a_plain_model(tmp_path):
    model = upper_bert()
    with PrefixCache(model, tmp_path / "cache"):
        losses_of(model, 2)
        torch.save(model, tmp_path / "model.pt")
    copied = torch.load(tmp_path / "model.pt", weights_only=False)
    assert losses_of(copied) == losses_of(model)


def test_a_second_open_is_refused(tmp_path):
    model = upper_bert()
    cache = PrefixCache(model, tmp_path)
    cache.open()
    with pytest.raises(ConfigError, match=r"block-2 is open: call open\(\), or use `with`, but not both\.$"), cache:
        pass
    losses_of(model, 1)
    cache.close()
    assert "forward" not in vars(model.get_base_model().bert)


def test_a_hook_on_a_block_that_would_not_run_is_named(tmp_path):
    model = build("BERT").train()
    seen: list[Any] = []
    with PrefixCache(model, tmp_path) as cache:
        handle = cache._cut.blocks[0].register_forward_hook(lambda *_: seen.append(1))
        with pytest.warns(UserWarning, match="because block 0 has a forward hook, which would not see examples"):
            losses_of(model)
        assert (cache.reads, len(seen)) == (0, 3 * STEPS)
        handle.remove()
        losses_of(model)
        assert cache.reads


def test_what_a_lower_block_leaves_on_a_module_is_not_taken_from_another_batch(tmp_path):
    model = build("Llama").train()
    backbone = find_cut(model).backbone
    lower, last = backbone.layers[0], backbone.layers[-1]
    before, after = type(lower).forward, type(last).forward
    left: list[torch.Tensor] = []

    def leave(*args, **kwargs):
        left[:] = [before(lower, *args, **kwargs)]
        return left[0]

    lower.forward = leave
    last.forward = lambda *args, **kwargs: after(last, *args, **kwargs) + left[0][:, :1].detach()
    with PrefixCache(model, tmp_path), pytest.raises(ModelError, match="need more than the hidden states of tokens"):
        losses_of(model, causal=True)


@pytest.mark.parametrize("use_cache", [True, False])
def test_packed_texts_are_read_only_if_they_do_not_see_each_other(use_cache, tmp_path):
    model = build("Llama").train()
    model.config.use_cache = use_cache
    rows = examples()

    def packed(several):
        places = torch.cat([torch.arange(len(row)) for row in several])[None]
        ids = torch.cat(several)[None]
        return {"input_ids": ids, "position_ids": places, "labels": ids}

    batches = [packed(rows[:1]), packed(rows[1:5]), packed(rows[5:9])] * 3
    expected = losses_on(copy.deepcopy(model), batches)
    with PrefixCache(model, tmp_path) as cache:
        if use_cache:
            with pytest.warns(UserWarning, match=r"these see each other unless model.config.use_cache=False"):
                found = losses_on(model, batches)
        else:
            found = losses_on(model, batches)
        assert cache.reads == (2 if use_cache else 6)
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_pass_that_compares_trains_on_what_is_stored(tmp_path, monkeypatch):
    """So that a resumed run is bit for bit the one that was not stopped, also where rows were padded otherwise."""
    model, batch = build("BERT").train(), padded(examples()[:4])
    plain = model(**batch).loss
    with PrefixCache(model, tmp_path) as cache:
        model(**batch).loss.backward()
        read = cache._store.read
        monkeypatch.setattr(cache._store, "read", lambda rows: read(rows) * 1.0001)  # as if it was rounded
        compared = model(**batch).loss
        assert (cache.fills, cache.reads, cache._due) == (1, 1, False)
        assert torch.equal(compared, model(**batch).loss) and not torch.equal(compared, plain)


def test_all_caches_of_a_directory_have_max_bytes_together(tmp_path):
    model = upper_bert(2)
    with PrefixCache(model, tmp_path, max_bytes="4KB"):
        losses_of(model, 2)
    used = sum(path.stat().st_size for path in tmp_path.glob("**/*.bin"))
    assert 3000 < used <= 4000
    with pytest.raises(DataError, match=r"is no more than the [\d,]+ bytes of other caches in"):
        PrefixCache(upper_bert(3), tmp_path, max_bytes=used).open()
    model = upper_bert(3)
    with PrefixCache(model, tmp_path, max_bytes=4000):
        losses_of(model, 2)
    assert sum(path.stat().st_size for path in tmp_path.glob("**/*.bin")) <= 4000
