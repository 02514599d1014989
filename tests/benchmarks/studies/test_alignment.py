"""trace(G^T B A) without G is that with G, and the choice it is compared with is the one that was made."""

import math

import pytest
import torch
from benchmarks.studies.alignment import (
    AlignmentSettings,
    compare,
    measure_alignment,
    render_alignment_markdown,
    study_alignment,
    summarize_alignment,
)
from benchmarks.studies.subject import Subject
from models import adamw, batch, lora_bert, lora_gpt2, lora_mixtral, lora_zoo, tiny_bert

from weightlora import WeightLora, WeightLoraConfig
from weightlora.adapters import find_adapters

SETTINGS = AlignmentSettings(rank=2, learning_rate=1e-2, select_steps=3, keep=3, batches=4, batch_size=4, seed=1)


def moved(model):
    """The model with factors that are not 0."""
    for adapter in find_adapters(model):
        for factor in adapter.factors:
            torch.nn.init.normal_(factor, std=0.3)
    return model


class WithLoss(torch.nn.Module):
    """Gives the zoo a loss, and returns what PEFT's models return."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        output = self.model(ids)
        return type("Output", (), {"loss": output.square().mean()})


def base_weight(adapter):
    if adapter.kind == "parameter":
        return adapter.layer.get_param()
    return adapter.layer.get_base_layer().weight


PLAIN = ["embed", "linear", "conv2", "conv3"]  # PEFT cannot multiply the factors of a grouped convolution out
CASES = {
    "bert": (lambda: (lora_bert(dropout=0.1),) * 2, batch()),
    "gpt2": (lambda: (lora_gpt2(),) * 2, {"input_ids": batch()["input_ids"], "labels": batch()["labels"]}),
    "mixtral": (lambda: (lora_mixtral(),) * 2, {"input_ids": batch()["input_ids"], "labels": batch()["input_ids"]}),
    "zoo": (lambda: (WithLoss(model := lora_zoo(target_modules=PLAIN)), model), {"ids": torch.arange(16).view(2, 8)}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_trace_is_that_of_the_full_gradient(case):
    build, inputs = CASES[case]
    called, model = build()
    moved(model)
    adapters = find_adapters(model)
    [measured] = measure_alignment(called.train(), adapters, [inputs])
    assert called.training and all(parameter.grad is None for parameter in model.parameters())

    weights = [base_weight(adapter).requires_grad_() for adapter in adapters]
    gradients = torch.autograd.grad(called.eval()(**inputs).loss, weights)
    expected = []
    for adapter, gradient in zip(adapters, gradients, strict=True):
        update = adapter.layer.get_delta_weight(adapter.adapter_name).detach()  # s B A, in the weight's own layout
        expected.append((gradient.double() * update.double()).sum() / adapter.scaling)
    assert measured.shape == (len(adapters),) and min(map(abs, expected)) > 1e-9
    assert measured.tolist() == pytest.approx(torch.stack(expected).tolist(), rel=2e-4, abs=1e-9)


def test_the_gradient_of_b_is_s_times_the_full_gradient_times_a():
    model = moved(lora_bert()).eval()
    adapter = find_adapters(model)[2]
    weight = base_weight(adapter).requires_grad_()
    full, of_b = torch.autograd.grad(model(**batch()).loss, [weight, adapter.factors[1]])
    a, b = adapter.factors
    torch.testing.assert_close(of_b, adapter.scaling * full @ a.T)
    torch.testing.assert_close((of_b * b).sum(), adapter.scaling * torch.trace(full.T @ b @ a))


def subject(layers: int = 1) -> Subject:
    rows = [{key: value[0] for key, value in batch(step, 1).items()} for step in range(40)]

    def collate(rows):
        return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}

    target = {"target_modules": ["query", "key", "value", "intermediate.dense"], "task_type": "SEQ_CLS"}
    return Subject(tiny_bert(layers), target, rows, collate)


def test_the_choice_is_made_after_the_steps_and_measured_before_it():
    steps = []
    study = study_alignment(subject(), SETTINGS, torch.device("cpu"), advance=lambda: steps.append(0))
    names = [f"bert.encoder.layer.0.{kind}" for kind in ("attention.self.query", "attention.self.key")]
    assert [adapter["name"] for adapter in study["adapters"]][:2] == names
    assert len(study["adapters"]) == 4 and sum(adapter["kept"] for adapter in study["adapters"]) == 3
    assert len(steps) == 3 + 4 and study["rows"] == 28
    assert all(adapter["trace"] != 0 and adapter["standard_error"] > 0 for adapter in study["adapters"])
    assert study == study_alignment(subject(), SETTINGS, torch.device("cpu"))
    other = study_alignment(subject(), AlignmentSettings(**{**vars(SETTINGS), "seed": 2}), torch.device("cpu"))
    assert other["adapters"] != study["adapters"]


def test_a_mean_over_batches_is_that_of_their_union():
    model = moved(lora_bert())
    adapters = find_adapters(model)
    halves = torch.stack(list(measure_alignment(model, adapters, [batch(0), batch(1)])))
    union = {key: torch.cat([batch(0)[key], batch(1)[key]]) for key in batch()}
    [whole] = measure_alignment(model, adapters, [union])
    torch.testing.assert_close(halves.mean(0), whole, rtol=1e-4, atol=1e-7)


def earlier_run(study, kept):
    return {"adapters": [{"name": a["name"], "score": 1.0, "kept": a["name"] in kept} for a in study["adapters"]]}


def test_an_earlier_run_says_what_was_kept():
    device = torch.device("cpu")
    study = study_alignment(subject(), SETTINGS, device)
    kept = {study["adapters"][1]["name"]}
    other = study_alignment(subject(), SETTINGS, device, earlier_run(study, kept))
    assert {adapter["name"] for adapter in other["adapters"] if adapter["kept"]} == kept
    assert [a["trace"] for a in other["adapters"]] == [a["trace"] for a in study["adapters"]]
    assert other["figures"]["spearman_score"] is None  # all scores are equal


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda run: run["adapters"].pop(),
            r"chose from 3 adapters, and this model has 4; 'bert.*intermediate.dense'",
        ),
        (lambda run: run["adapters"][0].pop("kept"), "has an adapter without name, score or kept: 'kept'"),
        (lambda run: [a.update(kept=True) for a in run["adapters"]], "all or none of the 4 adapters are kept"),
    ],
)
def test_a_run_that_cannot_be_compared_is_refused(change, message):
    study = {"adapters": [{"name": f"bert.encoder.layer.0.{kind}"} for kind in KINDS]}
    run = earlier_run(study, {study["adapters"][0]["name"]})
    change(run)
    with pytest.raises(ValueError, match=message):
        study_alignment(subject(), SETTINGS, torch.device("cpu"), run)


KINDS = ("attention.self.query", "attention.self.key", "attention.self.value", "intermediate.dense")


def adapters_of(traces, kept, scores=None):
    scores = scores or [0.0] * len(traces)
    return [
        {"name": f"m.{i}.q", "trace": trace, "standard_error": 0.1, "score": score, "kept": i in kept}
        for i, (trace, score) in enumerate(zip(traces, scores, strict=True))
    ]


def test_figures_on_cases_worked_by_hand():
    separated = compare(adapters_of([-3.0, -2.0, 1.0, 2.0], kept={0, 1}, scores=[9.0, 8.0, 7.0, 6.0]))
    assert separated["auc"] == 1 and separated["auc_magnitude"] == 3.5 / 4
    assert separated["spearman_score"] == pytest.approx(1)
    assert separated["spearman_kept"] == pytest.approx(2 / math.sqrt(5))
    assert separated["auc_p"] == pytest.approx(1 / 3)  # 2 of the 6 ways to choose two of four are as extreme
    assert compare(adapters_of([-3.0, -2.0, 1.0, 2.0], kept={2, 3}))["auc"] == 0
    assert compare(adapters_of([1.0, 1.0, 1.0], kept={1})) | {"auc_p": 1} == {
        "auc": 0.5,
        "auc_p": 1,
        "auc_magnitude": 0.5,
        "spearman_kept": None,
        "spearman_score": None,
    }
    assert compare(adapters_of([1.0, 2.0], {0}, scores=[None, 1.0]))["spearman_score"] is None


def test_the_page_says_what_the_figures_say():
    adapters = adapters_of([1.0, -3.0, 2.0, -2.0], kept={1, 3}, scores=[1.0, 4.0, 0.0, 3.0])
    study = {"model": "tiny_model", "chosen_by": "update credit", "settings": vars(SETTINGS), "adapters": adapters}
    page = render_alignment_markdown(study | {"figures": compare(adapters)})
    assert "tiny\\_model" in page and "The choice is by update credit." in page
    assert "The mean trace is -2.50e+00 for the 2 kept adapters and +1.50e+00 for the other 2." in page
    assert "not significantly different from chance (p = 0.33)" in page
    assert page.startswith(summarize_alignment(study | {"figures": compare(adapters)}) + "\n\n| adapter |")
    assert [line.split(" | ")[0] for line in page.splitlines()[-4:]] == ["| m.1.q", "| m.3.q", "| m.0.q", "| m.2.q"]


def test_measuring_does_not_change_the_choice():
    study = study_alignment(subject(2), SETTINGS, torch.device("cpu"))
    kept = {adapter["name"] for adapter in study["adapters"] if adapter["kept"]}
    assert kept == plain_choice()


def plain_choice() -> set[str]:
    """The same steps in a plain loop."""
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    task = subject(2)
    set_seed(SETTINGS.seed)
    model = get_peft_model(task.model, LoraConfig(r=2, lora_alpha=8, **task.target)).train()
    optimizer = adamw(model, lr=1e-2)
    selector = WeightLora(model, optimizer, WeightLoraConfig(keep=3, select_steps=3, seed=1))
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1)).tolist()
    for step in range(3):
        model(**task.collate([task.train[i] for i in order[4 * step : 4 * step + 4]])).loss.backward()
        optimizer.step()
        selector.step()
        optimizer.zero_grad()
    return set(selector.kept)
