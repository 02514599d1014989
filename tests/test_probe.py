"""The probe in a plain loop: the choice by hand, nothing else changed, and one sentence for what cannot work."""

import math
import random
import warnings

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from architectures import ARCHITECTURES
from models import adamw, batch, lora_bert, lora_zoo, samples, tiny_bert, train, wide_bert
from peft import LoraConfig, PeftModel, get_peft_model
from selections import start
from torch import nn
from torch.utils.data import DataLoader, Sampler
from transformers import WhisperConfig, WhisperForConditionalGeneration

from weightlora import WeightLora, WeightLoraConfig
from weightlora.adapters import base_model_of, find_adapters
from weightlora.engines import Engine
from weightlora.errors import ConfigError, DataError, ModelError, TrainingError
from weightlora.gradients import draws_of, signs_for
from weightlora.measure import peak_allocated_bytes
from weightlora.probe import undisturbed

GRADIENT = {"selection": "gradient", "keep": 3, "probe_batches": 2}


def selector_for(model, **settings) -> WeightLora:
    return start(model, **GRADIENT | settings)[2]


def test_the_choice_is_by_the_gradients_of_the_fresh_adapters_over_draws_of_a():
    norms = torch.zeros(12)
    own = [adapter.factors[0].detach().clone() for adapter in find_adapters(lora_bert())]
    draws = [a.factors[0].shape[1] // 4 for a in find_adapters(lora_bert())]  # as many rows as inputs
    assert set(draws) == {4, 6}
    for draw in range(6):
        model = lora_bert()
        for adapter, a, number in zip(find_adapters(model), own, draws, strict=True):
            first = 4 * min(draw, number - 1)
            adapter.factors[0].data = draws_of(a, signs_for(number, a.shape[1]))[first : first + 4]
        for step in range(2):
            (model(**batch(step)).loss / 2).backward()
        for place, (adapter, number) in enumerate(zip(find_adapters(model), draws, strict=True)):
            if draw < number:
                norms[place] += adapter.factors[1].grad.abs().sum() / number
    expected = (norms.view(2, 6) / norms.view(2, 6).mean(1, keepdim=True)).flatten()  # two blocks of six adapters
    selector = selector_for(lora_bert())
    assert selector.phase == "select"
    selector.probe(batch(step) for step in range(9))
    assert selector.phase == "train"
    assert list(selector.scores.values()) == pytest.approx(expected.tolist(), rel=1e-3)
    assert [a.name for a in find_adapters(selector.model)] == selector.kept and len(selector.kept) == 3
    first, decision = selector.history
    assert first == {"step": 0, "phase": "select", "active": 12, "score": first["score"]}
    assert first["score"] == pytest.approx(list(selector.scores.values()))
    assert decision["kept"] == selector.kept


def test_hooks_that_clip_gradients_clip_those_of_the_training():
    scores = []
    for clips in (False, True):
        model = lora_bert()
        for _ in range(2):
            model(**batch(0)).loss.backward()
        largest = max(p.grad.abs().max() for p in model.parameters() if p.grad is not None)
        for parameter in model.parameters():
            if clips and parameter.requires_grad:
                parameter.register_hook(lambda grad, most=float(largest): grad.clamp(-most, most))
        selector = selector_for(model)
        selector.probe([batch(0), batch(0)])
        scores.append(selector.scores)
    assert scores[0] == pytest.approx(scores[1], rel=1e-6)


def test_gradients_of_a_trial_step_are_no_evidence():
    scores = []
    for scale in (0.0, 1e9):
        model = lora_bert()
        (model(**batch(7)).loss * scale).backward()
        selector = selector_for(model)
        selector.probe([batch(0), batch(1)])
        scores.append(list(selector.scores.values()))
    assert scores[0] == scores[1]


def test_fewer_batches_than_asked_for_give_a_warning(recwarn):
    selector_for(lora_bert()).probe([batch(0), batch(1)])
    assert not [w for w in recwarn if "the probe got" in str(w.message)]
    with pytest.warns(
        UserWarning, match=r"^the probe got 2 of the 3 batches that it reads: the choice is made from these"
    ) as seen:
        selector_for(lora_bert(), probe_batches=3).probe(iter([batch(0), batch(1)]))
    assert [w.filename for w in seen if "the probe got" in str(w.message)] == [__file__], "it points to the call"


class RunsOut(Engine):
    """One of two processes, and the other one has so many batches."""

    def __init__(self, other: int) -> None:
        super().__init__()
        self.left = other

    def average(self, evidence):
        if evidence.dim() or evidence.dtype != torch.float64:
            return evidence  # the other one has the same gradients
        self.left -= 1
        return evidence if self.left >= 0 else evidence / 2


def test_a_process_waits_for_no_batch_that_another_one_does_not_have():
    """In DDP it would wait until the process group gives up."""
    found = []
    for given, engine in ((2, Engine()), (4, RunsOut(2))):
        model = lora_bert()
        selector = WeightLora(model, adamw(model), WeightLoraConfig(keep=3), engine=engine)
        with pytest.warns(UserWarning, match="the probe got 2 of the 4 batches"):
            selector.probe(map(batch, range(given)))
        found.append(selector.scores)
    assert found[0] == found[1]
    model = lora_bert()
    selector = WeightLora(model, adamw(model), WeightLoraConfig(keep=3), engine=RunsOut(0))
    with pytest.raises(DataError, match="the probe got no batch"):
        selector.probe(map(batch, range(4)))


class Order(Sampler):
    """Around one iterator: each of its readers goes on where the last one ended."""

    def __init__(self, rows: int):
        self.rows = iter(range(rows))

    def __iter__(self):
        return self.rows


@pytest.mark.parametrize("settings", [{"keep": 3}, {"keep_memory": "1GiB"}], ids=["number", "memory"])
@pytest.mark.parametrize("left", [True, False])
def test_data_that_loses_what_the_probe_read_is_told_of(settings, left):
    model = lora_bert()
    selector = WeightLora(model, adamw(model), WeightLoraConfig(selection="gradient", **settings))
    loader = DataLoader(samples(64), batch_size=8, sampler=Order(64 if left else 32))
    if left:
        with pytest.warns(UserWarning, match="^the first batch is another one when the data is read again"):
            selector.probe(loader)
    else:
        with pytest.raises(DataError, match=r"^the data can be read only once, and nothing is left for the training"):
            selector.probe(loader)


def test_a_batch_with_nan_is_the_same_when_it_is_read_again():
    """A loss may leave out labels that are missing."""

    def loss(found):
        there = ~found["target"].isnan()
        return (model(found["input_ids"]).logits[:, 0] - found["target"])[there].square().mean()

    rows = [{"input_ids": row["input_ids"], "target": math.nan if i % 3 else 1.0} for i, row in enumerate(samples(32))]
    model = lora_bert()
    selector = WeightLora(model, adamw(model), WeightLoraConfig(**GRADIENT))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        selector.probe(DataLoader(rows, batch_size=8), loss)
    assert selector.phase == "train"


def test_of_three_adapters_the_default_keeps_the_best():
    model = lora_bert(target_modules=[f"layer.{layer}.output.dense" for layer in range(3)], layers=3)
    selector = WeightLora(model, adamw(model))
    assert len(selector.names) == 3
    selector.probe([batch()])
    assert selector.kept == [max(selector.scores, key=selector.scores.get)]


def test_the_optimizer_holds_survivors_alone_from_its_first_step():
    model = lora_bert()
    selector = selector_for(model)
    selector.probe([batch()])
    adapters = [parameter for adapter in selector.adapters for parameter in adapter.parameters]
    heads = [p for name, p in model.named_parameters() if "modules_to_save" in name]
    held = [p for group in selector.optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in adapters + heads}
    assert not selector.optimizer.state


@pytest.mark.parametrize("settings", [{}, {"keep_memory": "1GiB"}], ids=["gradient", "memory"])
def test_nothing_but_the_adapters_changes(settings):
    model = lora_bert(dropout=0.1)
    model.base_model.model.bert.embeddings.eval()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    training = {name: module.training for name, module in model.named_modules()}
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()

    selector_for(model, keep=12, **settings).probe(noisy(batch(step) for step in range(2)))
    assert random.getstate() == states[0] and np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(training[name] == module.training for name, module in model.named_modules() if name in training)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules()), "or backward would go on to the embeddings"


def test_hidden_states_are_captured_once_after_a_probe_that_captured_them():
    """As models with images do in each forward pass: they take a hidden state of their vision tower by its number."""
    model, expected = lora_bert(), lora_bert()(**batch(), output_hidden_states=True).hidden_states
    selector_for(model, keep=12).probe([batch()], loss=lambda one: model(**one, output_hidden_states=True).loss)
    found = model(**batch(), output_hidden_states=True).hidden_states
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def noisy(batches):
    """What collators that mask or shuffle do."""
    for one in batches:
        random.random(), np.random.rand(), torch.rand(1)
        yield one


def rows() -> list[dict[str, torch.Tensor]]:
    """Twenty examples, each with its number as the first token."""
    inputs = batch()
    found = [{name: value[i % len(value)].clone() for name, value in inputs.items()} for i in range(20)]
    for i, row in enumerate(found):
        row["input_ids"][0] = i
    return found


@pytest.mark.parametrize("settings", [{}, {"keep": None, "keep_memory": "1GiB"}], ids=["gradient", "memory"])
@pytest.mark.parametrize("prepared", [False, True])
def test_a_loader_with_a_generator_of_its_own_gives_the_batches_that_it_would_have_given(prepared, settings):
    seen = []
    for probes in (False, True):
        loader = DataLoader(rows(), 4, shuffle=True, generator=torch.Generator().manual_seed(3))
        if prepared:
            accelerator = Accelerator(cpu=True)
            accelerator.gradient_state.dataloader_references = [None]
            loader = accelerator.prepare(loader)
        if probes:
            selector_for(lora_bert(), **settings).probe(loader)
            if prepared:
                assert accelerator.gradient_state.active_dataloader is None, "it does not count as being read"
        seen.append([one["input_ids"][:, 0].tolist() for _ in range(2) for one in loader])
    assert seen[0] == seen[1] and seen[0][0] != sorted(seen[0][0])


def test_an_iterator_goes_on_where_the_probe_ended_and_attributes_of_data_are_not_called():
    class Between(list):
        start, end = 0, 9

    iterator = iter([batch(step) for step in range(5)])
    selector_for(lora_bert()).probe(iterator)
    assert len(list(iterator)) == 3
    selector_for(lora_bert()).probe(Between([batch()]))


@pytest.mark.parametrize("on", [False, True])
def test_activations_are_recomputed_during_the_probe_and_the_setting_is_as_before(on):
    model = lora_bert()
    if on:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    seen = []

    def loss(one):
        seen.append([m.gradient_checkpointing for m in model.modules() if hasattr(m, "gradient_checkpointing")])
        return model(**one).loss

    selector_for(model).probe([batch()], loss)
    assert seen and all(seen[0])
    after = [m.gradient_checkpointing for m in model.modules() if hasattr(m, "gradient_checkpointing")]
    assert all(after) if on else not any(after)


def test_recomputing_changes_no_score():
    """The tiny BERT with its dropout: the same random numbers in both forward passes of a block."""
    model, other = lora_bert(dropout=0.1), lora_bert(dropout=0.1)
    other.gradient_checkpointing_enable({"use_reentrant": False})
    scores = []
    for one in (model, other):
        torch.manual_seed(5)
        selector = selector_for(one)
        selector.probe([batch()])
        scores.append(list(selector.scores.values()))
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)


def test_every_kind_of_layer_is_probed():
    model = lora_zoo()
    selector = selector_for(model)
    selector.probe([torch.randint(0, 20, (2, 8))], loss=lambda ids: model(ids).square().mean())
    assert all(score > 0 for score in selector.scores.values()), (
        "an embedding starts with A = 0, the others with B = 0"
    )


def test_small_gradients_do_not_vanish_in_float16():
    """Backward through float16 loses what is below 6e-8; the loss is scaled up for it."""
    model = get_peft_model(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)), LoraConfig(r=2, target_modules=["0", "1"]))

    def loss(data):
        return (model(data).half() * 1e-7).float().sum()

    selector = selector_for(model, keep=1)
    selector.probe([torch.ones(1, 4)], loss)
    assert all(score > 0 for score in selector.scores.values())


def test_what_is_chosen_trains_and_loads_as_a_plain_adapter(tmp_path):
    model, optimizer, selector = start(**GRADIENT)
    selector.probe([batch(step) for step in range(2)])
    before = [parameter.detach().clone() for adapter in selector.adapters for parameter in adapter.parameters]
    train(model, optimizer, selector, steps=3)
    after = [parameter for adapter in selector.adapters for parameter in adapter.parameters]
    assert not any(torch.equal(*pair) for pair in zip(before, after, strict=True)) and selector.step_count == 0
    model.save_pretrained(tmp_path)
    plain = PeftModel.from_pretrained(tiny_bert(), tmp_path).eval()
    assert {a.name for a in find_adapters(plain, check=False)} == set(selector.kept)
    torch.testing.assert_close(plain(**batch()).logits, model.eval()(**batch()).logits)


def test_a_resumed_run_has_its_choice_and_needs_no_probe():
    selector = selector_for(lora_bert())
    selector.probe([batch()])
    resumed, _, again = start(**GRADIENT, state=selector.state_dict())
    assert again.phase == "train" and again.kept == selector.kept and again.scores == selector.scores
    again.probe([])
    assert [a.name for a in find_adapters(resumed)] == selector.kept


def test_with_another_rule_there_is_nothing_to_probe():
    selector = start(select_steps=4)[2]
    with pytest.raises(ConfigError, match=r"^selection='credit' chooses while training: leave probe\(\) out"):
        selector.probe([batch()])


@pytest.mark.parametrize(
    ("batches", "loss", "error", "message"),
    [
        ([], None, DataError, r"^the probe got no batch, so there is nothing to choose by: give it at least one\.$"),
        (
            [{"input_ids": batch()["input_ids"]}],
            None,
            DataError,
            r"^batch 1 of the probe gave no loss to differentiate \(NoneType\): give batches with labels, or probe\(",
        ),
        (
            [batch()],
            lambda one: torch.tensor(1.0),
            DataError,
            r"^batch 1 of the probe gave a loss without a gradient: compute it from the model's outputs, without",
        ),
        (
            [batch()],
            lambda one: torch.ones(8, requires_grad=True),
            DataError,
            r"^batch 1 of the probe gave a loss of shape \(8,\), and a scalar is needed: give its mean\.$",
        ),
    ],
)
def test_without_evidence_there_is_one_sentence_and_no_change(batches, loss, error, message):
    selector = selector_for(lora_bert())
    with pytest.raises(error, match=message):
        selector.probe(batches, loss)
    assert selector.phase == "select" and len(selector.adapters) == 12
    selector.probe([batch()])
    assert len(selector.kept) == 3


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_probe_where_torch_records_nothing_says_so(mode):
    selector = selector_for(lora_bert())
    with (
        mode(),
        pytest.raises(DataError, match=r"gave a loss without a gradient: .*, without torch\.no_grad\(\), inf"),
    ):
        selector.probe([batch()])


def test_reentrant_checkpointing_without_a_gradient_of_the_inputs_is_told_of():
    """Whisper reads spectrograms, so Transformers has no embeddings to give the encoder's inputs a gradient."""
    sizes = {f"{part}_{what}": 2 for part in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    sizes |= {"num_mel_bins": 4, "d_model": 8, "max_source_positions": 5, "vocab_size": 20}
    shape = WhisperConfig(**sizes, pad_token_id=0, eos_token_id=1, decoder_start_token_id=1)
    model = get_peft_model(WhisperForConditionalGeneration(shape), LoraConfig(target_modules=["q_proj", "fc1"]))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    data = [{"input_features": torch.randn(2, 4, 10), "labels": torch.full((2, 3), 5)}]
    with pytest.raises(DataError, match=r"gave a loss without a gradient: .* set use_reentrant=False if you use grad"):
        selector_for(model).probe(data)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    selector = selector_for(model)
    selector.probe(data * 4)
    assert len(selector.kept) == 3


@pytest.mark.parametrize("per_step", [64 / 8, 0, -1, True, "2"])
def test_a_number_of_batches_in_a_step_that_cannot_be(per_step):
    selector = selector_for(lora_bert())
    with pytest.raises(ConfigError, match=r"^per_step=.* must be a whole number of at least 1\.$"):
        selector.probe([batch()], per_step=per_step)


def test_a_number_of_batches_in_a_step_may_be_one_of_numpy():
    selector = selector_for(lora_bert())
    batches = iter([batch()] * 99)
    selector.probe(batches, per_step=np.int64(2))
    assert len([*batches]) == 99 - 2 * selector.config.probe_batches


@pytest.mark.parametrize("batches", [3, None, batch()])
def test_what_is_no_list_of_batches(batches):
    selector = selector_for(lora_bert(), keep_step_time=0.5)
    with pytest.raises(
        DataError, match=r"^the probe got a \w+, and reads several batches: give a data loader, or a l"
    ):
        selector.probe(batches)


@pytest.mark.parametrize("settings", [{}, {"selection": "credit", "select_steps": 2}])
def test_reentrant_checkpointing_without_gradients_at_the_inputs_is_named(settings):
    """As plain PEFT trains nothing of a vision model then, without an error."""
    torch.manual_seed(0)
    vit = ARCHITECTURES["ViT"]
    model = get_peft_model(vit.build(), LoraConfig(**vit.lora)).train()
    model.base_model.model.gradient_checkpointing_enable({"use_reentrant": True})
    optimizer = adamw(model)
    selector = WeightLora(model, optimizer, WeightLoraConfig(keep=3, **settings))
    with pytest.raises(TrainingError, match=r"use_reentrant=False"):
        if selector.needs_probe:
            selector.probe([vit.batch()])
        model(**vit.batch()).loss.backward()
        optimizer.step()
        selector.step()


def test_gradients_that_are_zero_or_not_finite_are_named():
    model = lora_bert()
    selector = selector_for(model)
    with pytest.raises(
        TrainingError, match=r"^all gradients of the adapters are 0 in the probe: the loss does not dep"
    ):
        selector.probe([batch()], loss=lambda one: 0 * model(**one).loss)
    with pytest.raises(TrainingError, match=r"^the loss of batch 1 of the probe is nan: check the data\.$"):
        selector.probe([batch()], loss=lambda one: model(**one).loss * float("nan"))
    selector = selector_for(model)
    model.base_model.model.bert.encoder.layer[0].register_forward_hook(lambda *_: None)
    with pytest.raises(
        TrainingError, match=r"^the evidence on adapter '.*' is (inf|nan) in the probe: check the data"
    ):
        selector.probe([batch()], loss=lambda one: model(**one).loss * 1e36)
    assert len(selector.adapters) == 12 and all(parameter.grad is None for parameter in model.parameters())


def test_adapters_without_a_gradient_come_last_and_a_warning_counts_them():
    class Half(nn.Module):
        """Two layers that run, between two that do not."""

        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))

        def forward(self, x):
            return self.layers[2](self.layers[1](x).tanh())

    model = get_peft_model(Half(), LoraConfig(r=2, target_modules=r"layers\.\d"))
    selector = selector_for(model)
    with pytest.warns(UserWarning, match=r"^1 of the 3 adapters that stay got no gradient, so nothing is known of"):
        selector.probe([torch.ones(2, 4)], loss=lambda x: model(x).square().mean())
    assert selector.kept == ["layers.0", "layers.1", "layers.2"]


def test_trained_adapters_are_refused():
    model = lora_bert()
    with torch.no_grad():
        find_adapters(model)[4].factors[1].fill_(0.1)
    name = find_adapters(model)[4].name
    with pytest.raises(ModelError, match=rf"^adapter '{name}' does not start from 0, because it was trained or"):
        selector_for(model).probe([batch()])


def test_adapters_without_weights_are_refused():
    model = get_peft_model(
        lora_bert().unload(), LoraConfig(target_modules=["query"], task_type="SEQ_CLS"), low_cpu_mem_usage=True
    )
    with pytest.raises(ModelError, match=r"query' is on the meta device, without weights: load them, or leave low_"):
        selector_for(model, keep=1).probe([batch()])


@pytest.mark.parametrize("keep", [GRADIENT["keep"], 12])
def test_a_loop_that_forgets_the_probe_is_told_at_its_first_step(keep):
    model, optimizer, selector = start(**GRADIENT | {"keep": keep})
    model(**batch()).loss.backward()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with pytest.raises(
        TrainingError,
        match=r"^selection='gradient' chooses before the first step, .*: call probe\(batches\) before the loop, or",
    ):
        optimizer.step()  # the loop needs no step() of the selector
    assert all(map(torch.equal, before, model.parameters()))
    with pytest.raises(TrainingError, match="chooses before the first step, and has seen no batch"):
        selector.finish()
    again = WeightLora(model, optimizer, WeightLoraConfig(**GRADIENT))  # takes the place of the first one
    again.probe([batch()])
    optimizer.step()


def test_of_two_models_that_one_optimizer_trains_each_needs_its_probe():
    models = lora_bert(), lora_bert()
    optimizer = torch.optim.AdamW([p for model in models for p in model.parameters() if p.requires_grad])
    first, second = (WeightLora(model, optimizer, WeightLoraConfig(keep=3)) for model in models)
    second.probe([batch()] * 4)
    with pytest.raises(TrainingError, match=r"chooses before the first step"):
        optimizer.step()
    first.probe([batch()] * 4)
    optimizer.step()
    assert [len(find_adapters(model)) for model in models] == [3, 3]


def test_the_model_is_left_as_it_was_when_a_batch_fails():
    model = lora_bert()
    model.eval()

    def fails(one):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        selector_for(model).probe([batch()], fails)
    assert not model.training and not any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
    with undisturbed(model):
        assert model.training
    assert not model.training


def test_modules_that_the_user_froze_in_evaluation_mode_stay_so_where_the_model_trains():
    """Such as batch norms: with the statistics of a batch, gradients are those of another model."""
    model = lora_bert().train()
    seen, frozen = [], model.get_submodule("base_model.model.bert.encoder.layer.0.attention.output.LayerNorm")
    frozen.register_forward_hook(lambda module, *_: seen.append(module.training))
    frozen.eval()
    selector_for(model).probe([batch(), batch()])
    assert set(seen) == {False} and model.training
    model = lora_bert()
    base_model_of(model).eval()  # as it was loaded
    assert model.training
    with undisturbed(model):
        assert all(module.training for module in model.modules())


def test_an_optimizer_that_steps_in_the_backward_pass_waits_until_the_training():
    """As torchtune's `optimizer_in_bwd` and GaLore's layerwise variants do: an optimizer for each parameter."""
    chosen = selector_for(lora_bert())
    chosen.probe([batch(0), batch(1)])
    model = lora_bert()
    each = {p: torch.optim.AdamW([p], lr=1e-2) for p in model.parameters() if p.requires_grad}

    def step(parameter) -> None:
        each[parameter].step()
        parameter.grad = None

    for parameter in each:
        parameter.register_post_accumulate_grad_hook(step)
    selector = selector_for(model)
    selector.probe([batch(0), batch(1)])
    assert selector.scores == chosen.scores and not any(optimizer.state for optimizer in each.values())
    left = [p for adapter in selector.adapters for p in adapter.parameters]
    model(**batch()).loss.backward()
    assert all(each[p].state for p in left), "the training steps as before"
    assert sum(bool(optimizer.state) for optimizer in each.values()) == len(left) + 2, "and the head"


def test_what_modules_hold_beside_buffers_is_as_it_was():
    """RecurrentGemma keeps its last states in a plain attribute, with their graph; Qwen2-VL the last positions."""
    model = lora_bert()
    layer = model.base_model.model.bert.encoder
    layer.states, layer.positions = None, (before := torch.ones(3))
    with undisturbed(model):
        layer.states, layer.positions = layer.layer[0].output.dense.weight * 2, torch.zeros(2)
    assert layer.states is None and layer.positions is before


def test_a_frozen_weight_that_a_forward_pass_changed_ends_the_probe():
    """RWKV, evaluated before, scales its weights back when it trains, and has a switch that says so."""
    model = lora_bert()
    encoder = model.base_model.model.bert.encoder
    encoder.scaled = True

    def scales_back(one):
        if encoder.scaled:
            encoder.layer[0].output.dense.base_layer.weight.data.mul_(2)
            encoder.scaled = False
        return model(**one).loss

    with pytest.raises(ModelError, match=r"changed the frozen weight '.*layer.0.output.dense.base_layer.weight'"):
        selector_for(model).probe([batch()] * 2, scales_back)


@pytest.mark.slow
def test_the_probe_needs_less_memory_than_a_step_of_the_chosen_adapters():
    """The allocator's peak: one block's activations at a time, against those above the lowest survivor."""
    model = get_peft_model(wide_bert(), LoraConfig(task_type="SEQ_CLS", r=4, target_modules="all-linear"))
    ids = torch.randint(0, 50, (32, 64))
    data = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, 0] % 2}
    optimizer, cpu = adamw(model), torch.device("cpu")
    selector = WeightLora(model, optimizer, WeightLoraConfig(selection="gradient", keep_parameters=0.25))
    probing = peak_allocated_bytes(lambda: selector.probe([data]), cpu)

    def step():
        model(**data).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    assert probing < 1.1 * peak_allocated_bytes(step, cpu)
