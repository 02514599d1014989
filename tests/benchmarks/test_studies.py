"""Studies: every folder of experiments in the root has a summary of its own, and headroom its fit and its picture."""

import json

import pytest
import torch
from benchmarks.methods.rivals import RIVALS, FasterCallback, SampledCallback, choose
from benchmarks.studies.choices import movements, render_choices_markdown
from benchmarks.studies.kept import render_kept_markdown
from benchmarks.studies.pages import studies_in, write_studies
from models import adamw, batch, lora_bert, tiny_bert
from transformers import TrainerControl, TrainerState, TrainingArguments, get_linear_schedule_with_warmup

from weightlora.adapters import find_adapters
from weightlora.train.methods import METHODS, Setting

NAMES = [f"encoder.layer.{layer}.{part}" for layer in range(3) for part in ("query", "dense")]


def store(root, method, seed, loss, kept, **changes):
    path = root / "tiny" / "results" / method / f"seed-{seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "format": 1,
        "task": "tiny",
        "method": method,
        "seed": seed,
        "experiment": {"keep": 2},
        "loss": loss,
        "metric": {"name": "accuracy", "value": 0.5},
        "trainable_parameters": {"before": 6, "after": len(kept)},
        "names": NAMES,
        "kept": kept,
        "versions": {"weightlora": "0.1.0"},
        **changes,
    }
    path.write_text(json.dumps(content))
    return content


def test_a_study_has_its_tables_and_headroom_places_the_methods(tmp_path):
    store(tmp_path, "lora", 0, 0.4, NAMES)
    store(tmp_path, "top", 0, 0.45, NAMES[-3:], experiment={"keep": 3})
    store(tmp_path / "headroom", "top-2", 0, 0.9, NAMES[-2:])
    (tmp_path / "headroom" / "tiny").mkdir(exist_ok=True, parents=True)
    (tmp_path / "headroom" / "tiny" / "task.json").write_text("{}")
    for seed in range(12):
        kept = [NAMES[seed % 6], NAMES[(seed + 1 + seed // 6) % 6]]
        own = seed < 6
        place, label = (tmp_path, "random") if own else (tmp_path / "headroom", "random-2")
        store(place, label, seed, 0.5 + 0.01 * (NAMES[0] not in kept) + 0.001 * seed, kept)
    assert studies_in(tmp_path) == [tmp_path / "headroom"]
    written = write_studies(tmp_path, tmp_path / "out")
    assert [str(path.relative_to(tmp_path / "out")) for path in written] == [
        "headroom/tiny-random-2.md",
        "headroom/tiny-random-2.png",
    ]
    text = written[0].read_text()
    assert "12 runs of 12 random subsets of 6 adapters" in text
    assert "| lora | 1 | 0.4000 | 0 % | -0.1000 |" in text, "better than every subset"
    assert "| top-2 | 1 | 0.9000 | 100 % | +0.4000 |" in text and "| top |" not in text, "only the same K compares"
    summary = (tmp_path / "out" / "headroom" / "summary.md").read_text()
    assert "| lora | 1 | 0.4000 |" in summary and "| random | 6 |" in summary, "the main comparison's, to compare with"


def test_where_there_is_nothing_to_say_nothing_is_written(tmp_path):
    store(tmp_path, "lora", 0, 0.4, NAMES)
    assert write_studies(tmp_path, tmp_path / "out") == [] == list((tmp_path / "out").iterdir())


def test_choices_are_told_by_rule_and_step():
    evidence = [{"3": {"credit": scores}} for scores in ([9, 8, 0, 0, 0, 0], [9, 0, 0, 0, 0, 8])]
    runs = [
        {"task": "tiny", "seed": seed, "names": NAMES, "sizes": [1] * 6, "experiment": {"keep": 2}, "evidence": e}
        for seed, e in enumerate(evidence)
    ]
    (row,) = (line for line in render_choices_markdown(runs).splitlines() if line.startswith("| credit |"))
    assert row == "| credit | 0.33 (0.30) |", "one of three in common; places 0, 1, 0 and 5 of 5"


def test_credit_moves_between_thirds_of_the_layers(tmp_path):
    evidence = {"2": {"credit": [1, 0, 0, 1, 2, 0, 9]}, "6": {"credit": [4, 3, 1, 1, 2, 0, 90]}}
    told = {"names": [*NAMES, "pooler"], "sizes": [1] * 7, "experiment": {"keep": 2, "select_steps": 2}}
    (moved,) = movements([store(tmp_path, "lora", 0, 0.4, NAMES, evidence=evidence, **told)]).values()
    assert moved.edges == [0, 2, 6] and moved.decides_at == 2
    assert moved.shares.T.tolist() == [[0.25, 0.25, 0.5], [6 / 7, 1 / 7, 0]], "gained since the last edge; no pooler"
    written = {path.name: path for path in write_studies(tmp_path, tmp_path / "out")}
    assert written["movement.png"].read_bytes().startswith(b"\x89PNG")
    assert "(movement.png)" in written["choices.md"].read_text()


def test_what_was_kept_is_told_by_type_and_third(tmp_path):
    names = [f"h.{layer}.{kind}" for layer in range(6) for kind in ("q", "v")] + ["pooler"]
    for seed, kept in enumerate((["h.0.v", "h.5.q"], ["h.0.v", "h.1.v"])):
        store(tmp_path, "weightlora", seed, 0.4, kept, names=names)
    store(tmp_path, "random", 0, 0.4, names[:2], names=names)
    written = {path.name: path for path in write_studies(tmp_path, tmp_path / "out")}
    text = written["kept.md"].read_text()
    assert "## tiny: 2 of 13, 2 seeds" in text and "(mean Jaccard): 0.33" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert rows[1:] == [
        "| v | 25% | 50% | 0% | 0% |",
        "| q | 8% | 0% | 0% | 50% |",
        "| pooler | 0% |  |  | 0% |",
    ]
    assert written["tiny-kept.png"].read_bytes().startswith(b"\x89PNG")
    assert render_kept_markdown([]) == ""


def setting(**changes):
    values = {"rank": 4, "alpha": 8, "dropout": 0.0, "keep": 2, "select_steps": 3, "steps": 6, "seed": 0}
    targets = {"target_modules": ["query", "value"], "task_type": "SEQ_CLS"}
    return Setting(model=tiny_bert(), target=targets, batches=lambda: iter(()), **(values | changes))


def test_lora_at_equal_parameters_takes_the_nearest_rank():
    adapters = find_adapters(METHODS["lora-equal"](setting(rank=7, keep=1)).model)
    assert (len(adapters), {adapter.rank for adapter in adapters}) == (4, {2}), "7 / 4, to the nearest"


def test_rivals_keep_what_they_are_told_and_say_what_there_was(tmp_path):
    names = [a.name for a in find_adapters(lora_bert(target_modules=["query", "value"]))]
    prepared = RIVALS["subset"](setting(options={"kept": names[1:3]}))
    assert [adapter.name for adapter in find_adapters(prepared.model)] == names[1:3]
    assert prepared.candidates is not None and list(prepared.candidates) == names

    (tmp_path / "seed-0.json").write_text(json.dumps({"evidence": {"3": {"gradient": [1, 4, 2, 3]}}}))
    told = {"rule": "gradient", "at": 3, "evidence": str(tmp_path)}
    prepared = RIVALS["rival"](setting(options=told))
    assert [adapter.name for adapter in find_adapters(prepared.model)] == [names[1], names[3]]
    with pytest.raises(ValueError, match=r"keep_parameters=1 is less than .* the 2 smallest adapters"):
        RIVALS["rival"](setting(options={**told, "keep_parameters": 1}))
    with pytest.raises(
        ValueError, match=r"the evidence .*seed-7\.json is missing: run the method that writes it first"
    ):
        RIVALS["rival"](setting(options=told, seed=7))


def test_random_sets_can_be_of_some_modules_only():
    prepared = RIVALS["random-without"](setting(options={"without": r".*\.query"}))
    assert [adapter.name.split(".")[-1] for adapter in find_adapters(prepared.model)] == ["value", "value"]
    assert len(prepared.callbacks) == 1, "which takes all but K away as training begins"


def test_per_block_a_score_counts_relative_to_the_mean_of_its_block():
    sizes, record = dict.fromkeys(NAMES, 1), {"credit": [9, 6, 3, 1, 0, 0]}
    assert choose(record, sizes, "credit", 2) == NAMES[:2]
    assert choose(record, sizes, "credit-per-block", 2) == [NAMES[0], NAMES[2]], "9 / 7.5 and 3 / 2, over 6 / 7.5"
    with pytest.raises(ValueError, match="the record has no 'update', which rule 'update' needs"):
        choose(record, sizes, "update", 2)


def test_faster_multiplies_the_rate_from_one_step_to_the_end_of_the_schedule():
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
    prepared = RIVALS["faster"](setting(options={"factor": 2.0}))
    assert [type(callback).__name__ for callback in prepared.callbacks] == ["WeightLoraCallback", "FasterCallback"]


def test_sampled_trains_the_adapters_in_turns():
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
    prepared = RIVALS["sampled"](setting())
    assert [type(callback).__name__ for callback in prepared.callbacks] == ["WeightLoraCallback", "SampledCallback"]


@pytest.mark.parametrize(("per_block", "expected"), [(False, [0, 1]), (True, [0, 2])])
def test_by_gradient_chooses_by_the_norms_over_the_selection_phase(per_block, expected):
    prepared = RIVALS["by-gradient"](setting(options={"per_block": per_block}))
    (callback,), model = prepared.callbacks, prepared.model
    adapters, optimizer = find_adapters(model), adamw(model)
    state = TrainingArguments(), TrainerState(max_steps=6), TrainerControl()
    callback.on_train_begin(*state, model=model, optimizer=optimizer)
    for norms in ([0, 0, 4, 2], [12, 10, 1, 0], [6, -2, 5, 2]):  # sums 18, 12, 10 and 4, two adapters to a block
        for adapter, norm in zip(adapters, norms, strict=True):
            adapter.factors[1].grad = torch.full_like(adapter.factors[1], norm / adapter.factors[1].numel() ** 0.5)
        optimizer.step()
        callback.on_optimizer_step(*state)
        callback.on_step_end(*state, model=model)
    names = [adapter.name for adapter in adapters]
    assert [names.index(adapter.name) for adapter in find_adapters(model)] == expected
