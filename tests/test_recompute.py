"""`select_memory="low"`: less memory while evidence is gathered, the same choice, and the model as before."""

import gc
import weakref

import pytest
import torch
from loops import make_trainer
from models import adamw, lora_bert, train, wide_bert
from peft import LoraConfig, get_peft_model
from selections import start
from torch import nn

from weightlora import WeightLora, WeightLoraCallback, WeightLoraConfig
from weightlora.errors import ConfigError, ModelError
from weightlora.measure import peak_allocated_bytes
from weightlora.recompute import recomputed

RULES = ["credit", "stoiht"]


def run(memory: str, selection: str, steps: int = 4):
    """A selection on the tiny BERT with dropout, trained for `steps` of its 4 steps."""
    torch.manual_seed(3)
    settings = {"keep": 3, "select_steps": 4, "selection": selection, "select_memory": memory}
    model, optimizer, selector = start(lora_bert(dropout=0.1), **settings)
    train(model, optimizer, selector, steps=steps)
    return model, selector


def state_of(model: nn.Module) -> list:
    """What checkpointing changes on a model."""
    return [
        (getattr(module, "gradient_checkpointing", None), list(module._forward_hooks), list(module._forward_pre_hooks))
        for module in model.modules()
    ]


@pytest.mark.filterwarnings("ignore:the adapters are chosen after only")
@pytest.mark.parametrize("selection", RULES)
def test_the_choice_and_every_weight_are_the_same(selection):
    usual, low = run("usual", selection), run("low", selection)
    assert low[1].kept == usual[1].kept and low[1].scores == usual[1].scores
    assert all(torch.equal(a, b) for a, b in zip(low[0].parameters(), usual[0].parameters(), strict=True))


@pytest.mark.filterwarnings("ignore:the adapters are chosen after only")
@pytest.mark.parametrize("selection", RULES)
def test_checkpointing_is_on_until_the_decision_and_off_after_it(selection):
    before = state_of(lora_bert())
    model, selector = run("low", selection, steps=3)
    assert any(checkpointing for checkpointing, *_ in state_of(model)) and selector.phase == "select"
    model, selector = run("low", selection)
    plain, _ = run("usual", selection)
    assert selector.phase == "train" and state_of(model) == state_of(plain)
    assert not any(checkpointing or hooks or pre for checkpointing, hooks, pre in before)


def test_no_cache_is_asked_for_while_activations_are_recomputed():
    """Transformers would say that the two do not go together."""
    model = lora_bert()
    assert model.config.use_cache
    with pytest.raises(ZeroDivisionError), recomputed(model):
        assert model.config.use_cache is False
        raise ZeroDivisionError
    assert model.config.use_cache is True
    model.config.use_cache = False
    with recomputed(model):
        pass
    assert model.config.use_cache is False


@pytest.mark.filterwarnings("ignore:the adapters are chosen after only")
def test_a_run_that_resumes_recomputes_until_its_decision():
    _, selector = run("low", "credit", steps=2)
    state = selector.state_dict()
    model = lora_bert(dropout=0.1)
    resumed = WeightLora(model, adamw(model), selector.config, state=state)
    assert any(checkpointing for checkpointing, *_ in state_of(model))
    _, done = run("low", "credit")
    model = lora_bert(dropout=0.1)
    resumed = WeightLora(model, adamw(model), selector.config, state=done.state_dict())
    assert resumed.phase == "train" and not any(checkpointing for checkpointing, *_ in state_of(model))


def test_a_trainer_keeps_the_same(tmp_path):
    kept = []
    for memory in ("usual", "low"):
        callback = WeightLoraCallback(WeightLoraConfig(keep=3, select_steps=4, select_memory=memory))
        model = lora_bert(dropout=0.1)
        with pytest.warns(UserWarning, match="the adapters are chosen after only"):
            make_trainer(tmp_path / memory, model, callback).train()
        kept.append(callback.selector.scores)
        assert not any(checkpointing for checkpointing, *_ in state_of(model))
    assert kept[0] == kept[1]


def test_what_the_user_has_switched_on_stays_on():
    model = lora_bert()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    before = state_of(model)
    with recomputed(model):
        assert state_of(model) == before
    assert state_of(model) == before


def test_hooks_of_the_user_can_still_be_taken_off():
    model = lora_bert()
    model.enable_input_require_grads()
    base = model.base_model.model
    with recomputed(model):
        pass
    assert any(module._forward_hooks for module in base.modules())
    model.disable_input_require_grads()
    assert not any(module._forward_hooks for module in base.modules())


def test_no_attribute_stays_on_the_model():
    model = lora_bert()
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    with recomputed(model):
        assert {name: set(vars(module)) for name, module in model.named_modules()} != before
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before


def test_hooks_that_come_in_the_meantime_stay():
    model = lora_bert()
    with recomputed(model):
        handle = model.register_forward_hook(lambda *_: None)
    assert list(model._forward_hooks) == [handle.id]


def test_a_selection_needs_no_more_memory_than_the_adapters_that_it_keeps():
    """The allocator's peak of a step: one block's activations, and all adapters' gradients and moments."""
    data = {"input_ids": torch.randint(0, 50, (16, 32)), "labels": torch.zeros(16, dtype=torch.long)}

    def peak(target: str | list[str], memory: str | None) -> tuple[int, list[str]]:
        lora = LoraConfig(r=2, target_modules=target, task_type="SEQ_CLS", modules_to_save=["classifier"])
        model = get_peft_model(wide_bert(), lora)
        optimizer = adamw(model)
        config = WeightLoraConfig(keep=9, select_steps=3, select_memory=memory or "usual")
        selector = WeightLora(model, optimizer, config) if memory else None

        def step():
            model(**data).loss.backward()
            optimizer.step()
            if selector is not None:
                selector.step()
            optimizer.zero_grad()

        step()
        found = peak_allocated_bytes(step, torch.device("cpu"))
        if selector is not None:
            selector.finish()
        return found, selector.kept if selector is not None else []

    with pytest.warns(UserWarning, match="the adapters are chosen after only"):
        low, kept = peak("all-linear", "low")
        usual, same = peak("all-linear", "usual")
    assert kept == same
    limit, _ = peak(kept, None)
    assert low < 1.1 * limit and low < 0.5 * usual


def test_a_model_without_checkpointing_is_refused():
    model = get_peft_model(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)), LoraConfig(target_modules=["0", "1"]))
    with pytest.raises(
        ModelError, match=r"^select_memory='low' needs gradient checkpointing, which Sequential does n"
    ):
        WeightLora(model, adamw(model), WeightLoraConfig(keep=1, select_steps=30, select_memory="low"))
    with pytest.raises(ConfigError, match=r"^select_memory='tiny' is not known: choose one of 'usual', 'low'\.$"):
        WeightLoraConfig(select_memory="tiny")


@pytest.mark.parametrize("memory", ["usual", "low"])
def test_a_selection_that_was_given_up_leaves_nothing_and_the_next_one_recomputes_if_it_is_to(memory):
    """A cell of a notebook that runs again: its variable holds the first selection until the second one is built."""
    model, optimizer, selector = start(keep=3, select_steps=4, select_memory="low")
    train(model, optimizer, selector, steps=2)
    selector = WeightLora(model, optimizer, WeightLoraConfig(keep=3, select_steps=4, select_memory=memory))
    assert any(checkpointing for checkpointing, *_ in state_of(model)) == (memory == "low")
    train(model, optimizer, selector, steps=4)
    assert not any(checkpointing for checkpointing, *_ in state_of(model))


def test_a_selection_that_was_given_up_keeps_no_model_alive():
    model, optimizer, selector = start(keep=3, select_steps=4, select_memory="low")
    train(model, optimizer, selector, steps=2)
    seen = weakref.ref(model)
    del model, optimizer, selector
    gc.collect()
    assert seen() is None
