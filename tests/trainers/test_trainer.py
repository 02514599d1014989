"""The callback in a real Trainer: the same choice as in a plain loop, and nothing of ours in the Trainer's way."""

import math
import warnings
from functools import partial

import pytest
import torch
from models import adamw, batch, lora_bert, save_causal, tiny_bert
from peft import LoraConfig, get_peft_model
from torch.nn.functional import linear
from transformers import Trainer, TrainerCallback, TrainingArguments

from weightlora import WeightLora, WeightLoraCallback, WeightLoraConfig
from weightlora.adapters import find_adapters

LR = 1e-2
STEPS = 6
CREDIT = {"keep": 3, "select_steps": 4}
GATES = {"keep": 3, "select_steps": 4, "selection": "stoiht"}
RULES = {
    "credit": CREDIT,
    "gates": GATES,
    "gates under the schedule": GATES | {"omega_follows_lr": True, "threshold_every": 2, "constraint": "simplex"},
    "chance": CREDIT | {"selection": "random", "seed": 3},
    "credit, two rounds, growing": CREDIT | {"rounds": 2, "expand": "random"},
}


def samples(n: int = 8 * STEPS) -> list[dict[str, torch.Tensor]]:
    rows = [batch(step) for step in range(math.ceil(n / 8))]
    return [{key: value[i] for key, value in row.items()} for row in rows for i in range(8)][:n]


def trainer(tmp_path, model, *callbacks, kind=Trainer, **settings) -> Trainer:
    settings = {
        "output_dir": str(tmp_path),
        "per_device_train_batch_size": 8,
        "max_steps": STEPS,
        "train_sampling_strategy": "sequential",
        "learning_rate": LR,
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
    } | settings
    arguments = TrainingArguments(**settings)
    run = kind(model, arguments, train_dataset=samples(), eval_dataset=samples(8), callbacks=list(callbacks))
    run.model_accepts_loss_kwargs = False  # BERT takes them but averages over the micro-batch all the same
    return run


def by_hand(config: WeightLoraConfig) -> WeightLora:
    """The same training as a plain loop."""
    model = lora_bert()
    optimizer = adamw(model, LR, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / STEPS)
    selector = WeightLora(model, optimizer, config)
    for step in range(STEPS):
        model(**batch(step)).loss.backward()
        optimizer.step()
        selector.step()
        schedule.step()
        optimizer.zero_grad()
    return selector


def assert_same_history(one: WeightLora, other: WeightLora, rtol: float) -> None:
    assert len(one.history) == len(other.history)
    for mine, theirs in zip(one.history, other.history, strict=True):
        numbers = [key for key in mine if key in ("omega", "score")]
        assert {key: mine[key] for key in mine if key not in numbers} == {
            key: theirs[key] for key in theirs if key not in numbers
        }
        for key in numbers:
            assert mine[key] == pytest.approx(theirs[key], rel=rtol, abs=1e-9)


class At(TrainerCallback):
    """Calls a function at the end of one step."""

    def __init__(self, step: int, call) -> None:
        self.step, self.call = step, call

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.call(control=control, **kwargs)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_trainer_chooses_what_a_plain_loop_chooses(tmp_path, rule, accumulation):
    """Every gate, every score and the survivors; with accumulation, two halves of the same batch."""
    config = WeightLoraConfig(**RULES[rule])
    callback = WeightLoraCallback(config)
    run = trainer(
        tmp_path,
        lora_bert(),
        callback,
        per_device_train_batch_size=8 // accumulation,
        gradient_accumulation_steps=accumulation,
    )
    run.train()
    expected = by_hand(config)
    assert callback.selector.step_count == 4
    assert callback.selector.kept == expected.kept
    assert callback.selector.ranks == expected.ranks
    assert_same_history(callback.selector, expected, rtol=1e-3)
    on_model = find_adapters(run.model)
    assert [adapter.name for adapter in on_model] == expected.kept
    for adapter, other in zip(on_model, expected.adapters, strict=True):
        assert adapter.scaling == pytest.approx(other.scaling, rel=1e-3)
        for mine, theirs in zip(adapter.factors, other.factors, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("rule", [CREDIT, GATES], ids=["credit", "gates"])
def test_after_the_choice_only_survivors_are_left_and_they_go_on_training(tmp_path, rule):
    at_choice = {}

    def remember(model, **kwargs):
        at_choice.update({id(p): p.detach().clone() for a in find_adapters(model) for p in a.parameters})

    callback = WeightLoraCallback(WeightLoraConfig(**rule))
    run = trainer(tmp_path, lora_bert(), callback, At(4, remember))
    run.train()
    survivors = [parameter for adapter in callback.selector.adapters for parameter in adapter.parameters]
    assert len(survivors) == 2 * 3
    assert at_choice.keys() == {id(parameter) for parameter in survivors}
    assert not any(torch.equal(at_choice[id(parameter)], parameter) for parameter in survivors)

    head = [parameter for name, parameter in run.model.named_parameters() if ".modules_to_save." in name]
    held = [parameter for group in run.optimizer.param_groups for parameter in group["params"]]
    assert {id(parameter) for parameter in held} == {id(parameter) for parameter in survivors + head}
    assert {id(parameter) for parameter in run.optimizer.state} == {id(parameter) for parameter in held}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in run.model.modules())


def test_log_entries_hold_our_numbers(tmp_path):
    callback = WeightLoraCallback(WeightLoraConfig(**GATES))
    run = trainer(tmp_path, lora_bert(), callback)
    n = sum(a.size for a in find_adapters(run.model))
    run.train()
    entries = [entry for entry in run.state.log_history if "loss" in entry]
    history = [entry for entry in callback.selector.history if "omega" in entry]
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4, 5, 6]
    assert entries[0]["weightlora/active_adapters"] == 12
    assert [entry["weightlora/active_adapters"] for entry in entries[1:]] == [3] * 5
    left = sum(adapter.size for adapter in callback.selector.adapters)
    assert [entry["weightlora/trainable_parameters"] for entry in entries] == [n, n, n, left, left, left]
    for entry, past in zip(entries, [*history, history[-1], history[-1]], strict=True):
        gates = [gate for gate in past["omega"] if gate != 0]
        assert entry["weightlora/gate_min"] == min(gates)
        assert entry["weightlora/gate_max"] == max(gates)
        assert entry["weightlora/gate_mean"] == pytest.approx(sum(gates) / len(gates))
    assert run.state.log_history[-1]["weightlora/active_adapters"] == 3, "the summary of the run"
    assert len({entry["weightlora/gate_max"] for entry in entries}) > 2, "the gates must move, or this shows nothing"


def test_the_linear_schedule_goes_on_through_the_choice(tmp_path):
    run = trainer(tmp_path, lora_bert(), WeightLoraCallback(WeightLoraConfig(**CREDIT, expand="qr")))
    run.train()
    rates = [entry["learning_rate"] for entry in run.state.log_history if "loss" in entry]
    assert rates == pytest.approx([LR * (1 - step / STEPS) for step in range(STEPS)])
    assert [group["lr"] for group in run.optimizer.param_groups] == pytest.approx([0.0] * 2)


@pytest.mark.parametrize("rule", [CREDIT, GATES], ids=["credit", "gates"])
def test_evaluation_in_the_middle_changes_nothing(tmp_path, rule):
    """Bit for bit; and its own entries are logged with our numbers."""
    selectors = []
    for settings in ({}, {"eval_strategy": "steps", "eval_steps": 1}):
        callback = WeightLoraCallback(WeightLoraConfig(**rule))
        run = trainer(tmp_path, lora_bert(), callback, **settings)
        run.train()
        selectors.append(callback.selector)
    assert selectors[0].history == selectors[1].history
    evaluations = [entry for entry in run.state.log_history if "eval_loss" in entry]
    assert [entry["weightlora/active_adapters"] for entry in evaluations][3:] == [3, 3, 3]
    assert len(evaluations) == STEPS


@pytest.mark.parametrize("rule", [CREDIT, GATES], ids=["credit", "gates"])
def test_a_selection_longer_than_the_training_is_refused_before_the_first_step(tmp_path, rule):
    model = lora_bert()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    callback = WeightLoraCallback(WeightLoraConfig(**rule | {"select_steps": STEPS + 1}))
    run = trainer(tmp_path, model, callback)
    message = r"^select_steps=7 is longer than the training of 6 steps: lower it \(a fifth of the training, 2, is"
    with pytest.raises(ValueError, match=message):
        run.train()
    assert callback.selector is None
    assert run.state.global_step == 0
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_selection_may_take_the_whole_training(tmp_path):
    callback = WeightLoraCallback(WeightLoraConfig(keep=3, select_steps=STEPS))
    run = trainer(tmp_path, lora_bert(), callback)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="training ended")
        run.train()
    assert callback.selector.step_count == STEPS
    assert [adapter.name for adapter in find_adapters(run.model)] == callback.selector.kept
    assert len(callback.selector.kept) == 3


@pytest.mark.parametrize("rule", ["credit", "gates", "credit, two rounds, growing"])
def test_training_that_ends_early_decides_at_its_end_and_warns(tmp_path, rule):
    def stop(control, **kwargs):
        control.should_training_stop = True

    callback = WeightLoraCallback(WeightLoraConfig(**RULES[rule]))
    run = trainer(tmp_path, lora_bert(), callback, At(3, stop))
    with pytest.warns(UserWarning, match=r"training ended after 3 of 4 selection steps: the choice is made now"):
        run.train()
    assert run.state.global_step == 3
    assert callback.selector.phase == "train"
    assert [adapter.name for adapter in find_adapters(run.model)] == callback.selector.kept
    assert len(callback.selector.kept) == 3
    assert callback.selector.history[-1]["step"] == 3


def test_a_random_choice_before_the_first_step_trains_only_the_chosen(tmp_path):
    callback = WeightLoraCallback(WeightLoraConfig(keep=2, selection="random", select_steps=0))
    run = trainer(tmp_path, lora_bert(), callback)
    run.train()
    entries = [entry for entry in run.state.log_history if "loss" in entry]
    assert [entry["weightlora/active_adapters"] for entry in entries] == [2] * STEPS
    assert [adapter.name for adapter in find_adapters(run.model)] == callback.selector.kept
    assert all(adapter.factors[1].abs().max() > 0 for adapter in callback.selector.adapters)


def test_a_model_without_lora_is_refused_before_the_first_step(tmp_path):
    run = trainer(tmp_path, tiny_bert(), WeightLoraCallback(WeightLoraConfig(**CREDIT)))
    message = r"^BertForSequenceClassification has no PEFT adapters: call model = get_peft_model"
    with pytest.raises(ValueError, match=message):
        run.train()
    assert run.state.global_step == 0


def test_the_numbers_of_a_selection_that_has_not_begun_are_refused():
    with pytest.raises(ValueError, match=r"^the selection has not begun: it begins with trainer\.train\(\)\.$"):
        WeightLoraCallback().metrics()


def fuse(model) -> None:
    """As fused LoRA kernels do: each layer computes its update from the weights, and calls no module of PEFT's."""
    for adapter in find_adapters(model):
        layer, name = adapter.layer, adapter.adapter_name

        def forward(x, layer=layer, name=name):
            a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
            return layer.base_layer(x) + layer.scaling[name] * linear(linear(x, a), b)

        layer.forward = forward


def test_gates_that_a_fused_kernel_bypasses_are_noticed_in_the_first_step(tmp_path):
    model = lora_bert()
    fuse(model)
    run = trainer(tmp_path, model, WeightLoraCallback(WeightLoraConfig(**GATES)))
    with pytest.raises(ValueError, match=r"^no gate got a gradient: .*\(fused LoRA kernels bypass gates; switch them"):
        run.train()
    assert run.state.global_step == 0
    assert len(find_adapters(model)) == 12


def test_credit_works_under_a_fused_kernel(tmp_path):
    model = lora_bert()
    fuse(model)
    callback = WeightLoraCallback(WeightLoraConfig(**CREDIT))
    trainer(tmp_path, model, callback).train()
    expected = by_hand(callback.config)
    assert_same_history(callback.selector, expected, rtol=1e-4)
    assert [adapter.name for adapter in find_adapters(model)] == expected.kept


class Scaled(Trainer):
    """Mixed precision's loss scaling on a CPU: Accelerate's own path, with a real scaler. Spoils some steps."""

    loss_infinite_at: int | None = None
    head_infinite_at: int | None = None

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        return loss * math.inf if self.model.training and self.state.global_step == self.loss_infinite_at else loss

    def training_step(self, model, *args, **kwargs):
        loss = super().training_step(model, *args, **kwargs)
        if self.state.global_step == self.head_infinite_at:
            model.base_model.model.classifier.modules_to_save["default"].weight.grad.fill_(math.inf)
        return loss


@pytest.mark.parametrize("rule", ["credit", "gates"])
def test_a_loss_scale_changes_no_evidence(tmp_path, rule):
    callback = WeightLoraCallback(WeightLoraConfig(**RULES[rule]))
    run = trainer(tmp_path, lora_bert(), callback, kind=Scaled)
    run.train()
    assert run.optimizer.scaler.get_scale() == 2.0**10
    assert_same_history(callback.selector, by_hand(callback.config), rtol=1e-3)


@pytest.mark.parametrize(
    ("rule", "where"),
    [
        ("credit", "loss"),
        ("gates", "loss"),
        ("credit", "head"),
        ("gates", "head"),
        ("chance", "head"),
    ],
)
def test_a_step_that_the_scaler_skips_is_no_selection_step(tmp_path, rule, where):
    """The selection takes its four steps all the same, one later."""
    ended = []
    callback = WeightLoraCallback(WeightLoraConfig(**RULES[rule]))
    watch = At(4, lambda model, **kwargs: ended.append(len(find_adapters(model))))
    run = trainer(tmp_path, lora_bert(), callback, watch, kind=Scaled)
    setattr(run, f"{where}_infinite_at", 2)
    run.train()
    assert run.optimizer.scaler.get_scale() == 2.0**9, "one step was skipped"
    assert ended == [12]
    assert callback.selector.step_count == 4
    assert [entry["step"] for entry in callback.selector.history] == [1, 2, 3, 4, 4]
    assert len(callback.selector.kept) == 3


def test_a_second_training_with_the_same_callback_does_not_choose_again(tmp_path):
    run = trainer(tmp_path, lora_bert(), WeightLoraCallback(WeightLoraConfig(**CREDIT)))
    run.train()
    with pytest.raises(ValueError, match=r"^this callback has chosen 3 adapters in an earlier train\(\): remove it"):
        run.train()


def test_the_best_checkpoint_of_before_the_disconnect_is_not_brought_back(tmp_path, caplog):
    class Worsening(Trainer):
        """Its first evaluation is the best one."""

        def evaluate(self, *args, **kwargs):
            metrics = super().evaluate(*args, **kwargs) | {"eval_loss": float(self.state.global_step)}
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
            return metrics

    settings = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps"}
    callback = WeightLoraCallback(WeightLoraConfig(**CREDIT))
    watch = Snapshots()
    run = trainer(tmp_path, lora_bert(), callback, watch, kind=Worsening, save_steps=1, **settings)
    run.train()
    assert run.state.best_model_checkpoint == str(tmp_path / "checkpoint-4"), "the first with the kept adapters alone"
    assert "checkpoint-1 was the best checkpoint, and has adapters that are gone now" in caplog.text
    kept = [adapter.factors[1].detach().clone() for adapter in callback.selector.adapters]
    assert all(torch.equal(one, other) for one, other in zip(kept, watch.after[4], strict=True))


class Snapshots(TrainerCallback):
    """B of every adapter after each step, once the selection has ended its step."""

    def __init__(self):
        self.after = {}

    def on_step_end(self, args, state, control, **kwargs):
        self.after[state.global_step] = [a.factors[1].detach().clone() for a in find_adapters(kwargs["model"])]


def watch_backward(modules: dict[str, torch.nn.Module]) -> list[set[str]]:
    """For each forward pass to come, the modules whose output the backward pass reaches."""
    reached: list[set[str]] = []

    def watch(name, module, args, output):
        output = output[0] if isinstance(output, tuple) else output
        if not torch.is_grad_enabled():  # what checkpointing will compute again
            return
        if name == "embeddings":
            reached.append(set())
        if output.requires_grad:
            step = reached[-1]
            output.register_hook(lambda _: step.add(name))

    for name, module in modules.items():
        module.register_forward_hook(partial(watch, name))
    return reached


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
@pytest.mark.parametrize("reentrant", [False, True])
def test_after_the_disconnect_backward_ends_at_the_lowest_survivor_under_checkpointing(tmp_path, reentrant):
    model = lora_bert(layers=3, layers_to_transform=[1, 2], target_modules=["query", "value"])
    model.enable_input_require_grads()  # as TRL does
    bert = model.base_model.model.bert
    reached = watch_backward({"embeddings": bert.embeddings, **{f"{i}": bert.encoder.layer[i] for i in range(3)}})
    callback = WeightLoraCallback(WeightLoraConfig(keep=2, select_steps=4))
    settings = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": reentrant}}
    run = trainer(tmp_path, model, callback, **settings)
    run.train()
    everything = {"embeddings", "0", "1", "2"}
    lowest = min(int(name.split(".")[3]) for name in callback.selector.kept)
    left = everything if reentrant else {str(i) for i in range(lowest, 3)}
    assert reached == [everything] * 4 + [left] * 2, "checkpointing has asked for the gradient at the embeddings"
    assert all(adapter.factors[1].abs().sum() > 0 for adapter in callback.selector.adapters)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_it_ends_there_under_trls_sft_trainer_too(tmp_path):
    """Which checkpoints by default, and asks for the gradient at the embeddings a second time."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig

    from weightlora import WeightLoraSFTTrainer

    save_causal(tmp_path / "base", ["a", "b"])
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], layers_to_transform=[1], task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), lora)
    run = WeightLoraSFTTrainer(
        model,
        SFTConfig(str(tmp_path), max_steps=4, use_cpu=True, bf16=False, report_to=[], save_strategy="no"),
        train_dataset=Dataset.from_dict({"text": ["a b a b", "b a b a"] * 16}),
        processing_class=AutoTokenizer.from_pretrained(tmp_path / "base"),
        weightlora=WeightLoraConfig(keep=1, select_steps=2),
    )
    assert run.args.gradient_checkpointing
    llama = model.base_model.model.model
    reached = watch_backward({"embeddings": llama.embed_tokens, **{f"{i}": llama.layers[i] for i in range(2)}})
    run.train()
    assert reached == [{"embeddings", "0", "1"}] * 2 + [{"1"}] * 2
