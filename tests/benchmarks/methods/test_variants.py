"""Variants of the default: another score, another learning rate, adapters in turns."""

import pytest
import torch
from benchmarks.methods import ALL_METHODS
from benchmarks.methods.variants import FasterCallback, SampledCallback
from models import adamw, batch, lora_bert
from transformers import TrainerControl, TrainerState, TrainingArguments, get_linear_schedule_with_warmup

from weightlora.adapters import find_adapters


def test_faster_multiplies_the_rate_from_one_step_to_the_end_of_the_schedule(setting):
    rates = {}
    for factor in (1.0, 2.0):
        optimizer = adamw(lora_bert())
        scheduler = get_linear_schedule_with_warmup(optimizer, 2, 10)
        callback = FasterCallback(4, factor)
        rates[factor] = []
        for step in range(1, 11):
            optimizer.step()
            scheduler.step()
            state = TrainerState(global_step=step)
            callback.on_step_end(TrainingArguments(), state, TrainerControl(), lr_scheduler=scheduler)
            rates[factor].append(optimizer.param_groups[0]["lr"])
    plain = torch.tensor(rates[1.0])
    torch.testing.assert_close(torch.tensor(rates[2.0]), torch.cat([plain[:3], 2 * plain[3:]]))
    prepared = ALL_METHODS["faster"].prepare(setting(options={"factor": 2.0}))
    assert [type(callback).__name__ for callback in prepared.callbacks] == ["WeightLoraCallback", "FasterCallback"]


def test_sampled_trains_the_adapters_in_turns(setting):
    model = lora_bert()
    optimizer, adapters = adamw(model), find_adapters(model)
    callback, args, control = SampledCallback(keep=4, steps=6, seed=0), TrainingArguments(), TrainerControl()
    callback.on_train_begin(args, TrainerState(), control, model=model)
    moved = []
    for step in range(7):
        state = TrainerState(global_step=step)
        callback.on_step_begin(args, state, control)
        before = [adapter.factors[1].detach().clone() for adapter in adapters]
        model(**batch(step)).loss.backward()
        optimizer.step()
        callback.on_optimizer_step(args, state, control)
        optimizer.zero_grad()
        now = [adapter.factors[1] for adapter in adapters]
        moved.append({i for i in range(12) if not torch.equal(before[i], now[i])})
    assert [len(turn) for turn in moved] == [4] * 6 + [12]
    assert set.union(*moved[:3]) == set.union(*moved[3:6]) == set(range(12)) and moved[:3] != moved[3:6]
    prepared = ALL_METHODS["sampled"].prepare(setting())
    assert [type(callback).__name__ for callback in prepared.callbacks] == ["WeightLoraCallback", "SampledCallback"]


@pytest.mark.parametrize(("per_block", "expected"), [(False, [0, 1]), (True, [0, 2])])
def test_by_gradient_chooses_by_the_norms_over_the_selection_phase(per_block, expected, setting, tmp_path):
    prepared = ALL_METHODS["by-gradient"].prepare(setting(options={"per_block": per_block}))
    (callback,), model = prepared.callbacks, prepared.model
    adapters, optimizer = find_adapters(model), adamw(model)
    state = TrainingArguments(str(tmp_path)), TrainerState(max_steps=6), TrainerControl()
    callback.on_train_begin(*state, model=model, optimizer=optimizer)
    for norms in ([0, 0, 4, 2], [12, 10, 1, 0], [6, -2, 5, 2]):  # sums 18, 12, 10 and 4, two adapters to a block
        for adapter, norm in zip(adapters, norms, strict=True):
            adapter.factors[1].grad = torch.full_like(adapter.factors[1], norm / adapter.factors[1].numel() ** 0.5)
        callback.on_pre_optimizer_step(*state, optimizer=optimizer)
        optimizer.step()
        callback.on_optimizer_step(*state)
        callback.on_step_end(*state, model=model)
    names = [adapter.name for adapter in adapters]
    assert [names.index(adapter.name) for adapter in find_adapters(model)] == expected
