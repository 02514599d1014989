"""Evidence is what it says, and gathering it changes nothing."""

import numpy as np
import pytest
import torch
from benchmarks.evidence import EvidenceCallback
from benchmarks.methods.scores import RULES, choose
from models import adamw, batch, lora_bert
from transformers import Trainer, TrainingArguments

from weightlora import WeightLora, WeightLoraConfig
from weightlora.adapters import find_adapters


def rows(steps, size=4):
    for step in range(steps):
        one = batch(step, size)
        yield from ({key: one[key][index] for key in one} for index in range(size))


def trained(tmp_path, *callbacks, steps=5):
    model = lora_bert()
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=steps,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        train_sampling_strategy="sequential",
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    Trainer(model=model, args=arguments, train_dataset=list(rows(steps)), callbacks=list(callbacks)).train()
    return model


def test_watching_changes_nothing_and_credit_is_the_selectors(tmp_path):
    watch = EvidenceCallback([2, 5], lambda: batch(9), leave_out_at=5)
    watched, plain = trained(tmp_path, watch), trained(tmp_path)
    for one, other in zip(watched.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)
    assert sorted(watch.records) == [2, 5]
    assert "leave_one_out" in watch.records[5] and "leave_one_out" not in watch.records[2]

    model = lora_bert()
    optimizer = adamw(model, weight_decay=0.0)
    selector = WeightLora(model, optimizer, WeightLoraConfig(keep=3, select_steps=3))
    names = [adapter.name for adapter in find_adapters(model)]
    for step in range(2):
        model(**batch(step, 4)).loss.backward()
        optimizer.step()
        selector.step()
        optimizer.zero_grad()
    scores = [selector.scores[name] for name in names]
    assert watch.records[2]["credit"] == pytest.approx(scores, rel=1e-3)


def test_credit_of_the_next_batch_is_the_decrease_on_a_batch_that_was_not_seen(tmp_path):
    watch = EvidenceCallback([2], lambda: batch(9), leave_out_at=2)
    trained(tmp_path, watch, steps=2)
    # By hand: the first move, against the gradient of the second batch after it.
    model = lora_bert()
    optimizer = adamw(model, weight_decay=0.0)
    before = [[factor.detach().clone() for factor in adapter.factors] for adapter in find_adapters(model)]
    model(**batch(0, 4)).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    model(**batch(1, 4)).loss.backward()
    expected = [
        -sum(float((f.grad * (f.detach() - old)).sum()) for f, old in zip(adapter.factors, olds, strict=True))
        for adapter, olds in zip(find_adapters(model), before, strict=True)
    ]
    assert watch.records[2]["next_credit"] == pytest.approx(expected, rel=1e-3)


def test_leave_one_out_is_the_loss_without_the_adapter(tmp_path):
    watch = EvidenceCallback([], lambda: batch(9), leave_out_at=3)
    model = trained(tmp_path, watch, steps=3)
    model.eval()
    with torch.no_grad():
        whole = model(**batch(9)).loss
        find_adapters(model)[4].factors[1].zero_()
        assert watch.records[3]["leave_one_out"][4] == pytest.approx(float(model(**batch(9)).loss - whole), rel=1e-3)


def test_every_rule_chooses_from_a_record(tmp_path):
    watch = EvidenceCallback([3], lambda: batch(9), leave_out_at=3)
    model = trained(tmp_path, watch, steps=3)
    sizes = {adapter.name: adapter.size for adapter in find_adapters(model)}
    names = list(sizes)
    for rule in RULES:
        chosen = choose(watch.records[3], sizes, rule, 4)
        assert len(set(chosen)) == 4 and chosen == sorted(chosen, key=names.index)
    best = names[int(np.argmax(watch.records[3]["update"]))]
    assert choose(watch.records[3], dict.fromkeys(names, 1), "update", 1) == [best]
    (only,) = choose(watch.records[3], sizes, "update", 1)
    assert sizes[only] <= np.mean(list(sizes.values())), "the share of one of them"
    assert choose(watch.records[3], sizes, "update", 1, sum(sizes.values())) == [best], "no bound"
    (only,) = choose(watch.records[3], sizes, "update", 1, min(sizes.values()))
    assert sizes[only] == min(sizes.values())
    with pytest.raises(ValueError, match="rule 'luck' is unknown: choose one of credit"):
        choose(watch.records[3], sizes, "luck", 4)
    with pytest.raises(ValueError, match="no 'leave_one_out', which rule 'leave-one-out' needs"):
        choose({"credit": [1.0]}, {names[0]: 1}, "leave-one-out", 1)
