"""The probe inside trainers: the choice of a plain loop, after which training sees the batches that it would see."""

import itertools
import random
from collections import defaultdict
from types import MethodType

import pytest
import torch
from loops import make_trainer
from models import adamw, batch, lora_bert, samples
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from weightlora import WeightLora, WeightLoraCallback, WeightLoraConfig, WeightLoraTrainer
from weightlora.adapters import find_adapters
from weightlora.errors import ConfigError, TrainingError

GRADIENT = WeightLoraConfig(selection="gradient", keep=3, probe_batches=2)


class Watch(Trainer):
    """Notes the batches that it trains on, and the parameters that its optimizer holds at the first step."""

    def training_step(self, model, inputs, *args, **kwargs):
        if not hasattr(self, "seen"):
            self.seen, self.held = [], sum(p.numel() for group in self.optimizer.param_groups for p in group["params"])
        self.seen.append(inputs["input_ids"][:, 0].tolist())
        return super().training_step(model, inputs, *args, **kwargs)


def chosen_by_hand(steps: tuple[int, ...] = (0, 1), per_step: int = 1) -> list[str]:
    model = lora_bert()
    selector = WeightLora(model, adamw(model), GRADIENT)
    selector.probe([batch(step) for step in steps], per_step=per_step)
    return selector.kept


def test_the_trainer_chooses_what_a_plain_loop_chooses_on_its_first_batches(tmp_path):
    callback = WeightLoraCallback(GRADIENT)
    run = make_trainer(tmp_path, lora_bert(), callback, kind=Watch)
    run.train()
    assert callback.selector.kept == chosen_by_hand() == [adapter.name for adapter in find_adapters(run.model)]
    trained = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    assert run.held == trained and len(run.seen) == 6


def test_a_module_in_evaluation_mode_trains_in_the_probe_as_it_does_in_each_step(tmp_path):
    """A Trainer's step sets the whole model to training."""
    model = lora_bert().train()
    seen, norm = [], model.get_submodule("base_model.model.bert.encoder.layer.0.attention.output.LayerNorm")
    norm.register_forward_hook(lambda module, *_: seen.append(module.training))
    norm.eval()
    make_trainer(tmp_path, model, WeightLoraCallback(GRADIENT), max_steps=2).train()
    assert set(seen) == {True} and len(seen) > 2


def test_no_loader_counts_as_being_read_that_would_not_without_a_probe(tmp_path):
    """A Trainer that stops inside an epoch leaves one, in a list that all Trainers of a process share."""
    left = []
    for callbacks in ([], [WeightLoraCallback(GRADIENT)]):
        run = make_trainer(tmp_path, lora_bert(), *callbacks, max_steps=1)
        before = len(run.accelerator.gradient_state.dataloader_references)
        run.train()
        left.append(len(run.accelerator.gradient_state.dataloader_references) - before)
    assert left[0] == left[1]


@pytest.mark.parametrize("keep", [{"keep": 3}, {"keep_memory": "1GiB"}], ids=["number", "memory"])
def test_the_choice_does_not_depend_on_how_a_batch_is_split(tmp_path, keep):
    """The probe reads whole steps: with accumulation, all their parts."""
    scores = []
    for accumulation in (1, 4):
        callback = WeightLoraCallback(WeightLoraConfig(selection="gradient", probe_batches=2, **keep))
        run = make_trainer(
            tmp_path / str(accumulation),
            lora_bert(),
            callback,
            max_steps=1,
            gradient_accumulation_steps=accumulation,
            per_device_train_batch_size=8 // accumulation,
        )
        run.train()
        scores.append(torch.tensor([*callback.selector.scores.values()]))
    torch.testing.assert_close(*scores, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("seedable", [True, False])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_training_sees_the_batches_that_it_would_see_without_a_probe(tmp_path, seedable, accumulation):
    seen = []
    for callbacks in ([WeightLoraCallback(GRADIENT)], []):
        run = make_trainer(
            tmp_path,
            lora_bert(),
            *callbacks,
            kind=Watch,
            train_sampling_strategy="random",
            accelerator_config={"use_seedable_sampler": seedable},
            gradient_accumulation_steps=accumulation,
            per_device_train_batch_size=8 // accumulation,
        )
        run.train()
        seen.append(run.seen)
    assert seen[0] == seen[1] and len(seen[0]) == 6 * accumulation


def test_dropout_goes_on_with_the_random_numbers_of_a_run_without_a_probe(tmp_path):
    """The first step's loss is that of all adapters, for B = 0: only the masks could differ."""
    losses = []
    for callbacks in ([WeightLoraCallback(GRADIENT)], []):
        run = make_trainer(tmp_path, lora_bert(dropout=0.2), *callbacks, max_steps=1)
        run.train()
        losses.append(run.state.log_history[0]["loss"])
    assert losses[0] == losses[1]


def test_a_resumed_run_does_not_probe_again(tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 2}
    whole = make_trainer(tmp_path, lora_bert(), kind=WeightLoraTrainer, weightlora=GRADIENT, **settings)
    whole.train()
    again = make_trainer(tmp_path, lora_bert(), kind=WeightLoraTrainer, weightlora=GRADIENT, **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert again.weightlora.selector.kept == whole.weightlora.selector.kept
    for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)


class Stream(IterableDataset):
    """Can be read again and again, and has no length."""

    def __iter__(self):
        yield from samples()


def test_a_stream_that_can_be_read_again_is_probed(tmp_path):
    run = make_trainer(tmp_path, lora_bert(), WeightLoraCallback(GRADIENT), kind=Watch)
    run.train_dataset = Stream()
    run.train()
    assert [adapter.name for adapter in find_adapters(run.model)] == chosen_by_hand()
    assert run.seen == [batch(step)["input_ids"][:, 0].tolist() for step in range(6)]


class Shuffling(Stream):
    """Draws an order, and counts its epochs, when it is asked for an iterator."""

    def __init__(self):
        self.epoch = 0

    def __iter__(self):
        self.epoch += 1
        rows = samples()
        random.Random(self.epoch).shuffle(rows)
        return (rows[index] for index in torch.randperm(len(rows)).tolist())


def test_a_stream_whose_iterator_draws_an_order_gives_the_order_of_a_run_without_a_probe(tmp_path):
    seen = []
    for callbacks in ([], [WeightLoraCallback(GRADIENT)]):
        run = make_trainer(tmp_path, lora_bert(), *callbacks, kind=Watch)
        run.train_dataset = Shuffling()
        run.train()
        seen.append((run.seen, run.train_dataset.epoch))
    assert seen[0] == seen[1]


class Handle(IterableDataset):
    """Hides that its rows can be read once: each iterator is a new one."""

    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        yield from self.rows


def test_a_stream_that_holds_an_iterator_is_told_of(tmp_path):
    run = make_trainer(tmp_path, lora_bert(), WeightLoraCallback(GRADIENT))
    run.train_dataset = Handle(iter([*samples(), *samples()]))
    with pytest.warns(
        UserWarning, match="^the first batch is another one .* the data can be read only once, and the training misses"
    ):
        run.train()


class Once(IterableDataset):
    def __iter__(self):
        return self

    def __next__(self):
        raise StopIteration


class Around(IterableDataset):
    """Around an iterator: the batches of the probe would be missing from the training."""

    def __init__(self):
        self.rows = iter(samples())

    def __iter__(self):
        return iter(self.rows)


@pytest.mark.parametrize("data", [Once, Around])
def test_data_that_can_be_read_once_only_is_refused(tmp_path, data):
    run = make_trainer(tmp_path, lora_bert(), WeightLoraCallback(GRADIENT))
    run.train_dataset = data()
    message = (
        f"^the training data comes from a {data.__name__}, which can be read only once, and selection='gradient' reads"
    )
    with pytest.raises(ConfigError, match=message):
        run.train()


def test_a_trainer_that_makes_its_own_batches_is_refused(tmp_path):
    class Online(Trainer):
        def _prepare_inputs(self, inputs):
            return super()._prepare_inputs(inputs)

    run = make_trainer(tmp_path, lora_bert(), WeightLoraCallback(GRADIENT), kind=Online)
    with pytest.raises(ConfigError, match=r"^Online overrides _prepare_inputs, which may make its batches"):
        run.train()


class Own(Trainer):
    """The loss of the model's labels, which the probe would take, is not what it minimizes."""

    def training_step(self, model, inputs, *args, **kwargs):
        loss = model(**inputs).logits.square().mean()
        self.accelerator.backward(loss)
        return loss.detach()


def test_a_trainer_whose_step_has_a_loss_of_its_own_is_refused(tmp_path):
    class Below(Own):
        def training_step(self, *args, **kwargs):
            return super().training_step(*args, **kwargs)

    run = make_trainer(tmp_path, lora_bert(), WeightLoraCallback(GRADIENT), kind=Below)
    message = (
        "^Below.training_step does not call compute_loss, which gives selection='gradient' its loss: set selection="
    )
    with pytest.raises(ConfigError, match=message):
        run.train()


@pytest.mark.parametrize("own", [True, False])
def test_a_step_that_was_put_on_the_trainer_itself_is_looked_into(tmp_path, own):
    run = make_trainer(tmp_path, lora_bert(), WeightLoraCallback(GRADIENT), max_steps=1)
    usual = run.training_step

    def around(*args, **kwargs):
        return usual(*args, **kwargs)

    run.training_step = MethodType(Own.training_step, run) if own else around
    if not own:
        run.train()
        return
    with pytest.raises(ConfigError, match=r"^Trainer.training_step does not call compute_loss"):
        run.train()


@pytest.mark.parametrize("way", ["inside", "by a method", "decorated"])
def test_a_trainer_whose_step_calls_compute_loss_in_another_function_is_probed(tmp_path, way):
    def timed(step):
        def wrapper(*args):
            return step(*args) if args else wrapper  # it holds itself

        return wrapper

    class Inside(Trainer):
        def training_step(self, model, inputs, *args, **kwargs):
            def step():
                return self.backward(self.compute_loss(model, self._prepare_inputs(inputs)))

            return step()

        def backward(self, loss):
            self.accelerator.backward(loss)
            return loss.detach()

    class ByMethod(Inside):
        def training_step(self, model, inputs, *args, **kwargs):
            return self.backward(self.loss_of(model, inputs))

        def loss_of(self, model, inputs):
            return self.compute_loss(model, self._prepare_inputs(inputs))

    class Decorated(ByMethod):
        training_step = timed(ByMethod.training_step)

    kind = {"inside": Inside, "by a method": ByMethod, "decorated": Decorated}[way]
    callback = WeightLoraCallback(GRADIENT)
    make_trainer(tmp_path, lora_bert(), callback, kind=kind).train()
    assert callback.selector.kept == chosen_by_hand()


def test_the_loss_is_the_trainers_own(tmp_path):
    class Halved(Trainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            return 0 * super().compute_loss(model, inputs, *args, **kwargs)

    run = make_trainer(tmp_path, lora_bert(), WeightLoraCallback(GRADIENT), kind=Halved)
    with pytest.raises(TrainingError, match=r"^all gradients of the adapters are 0 in the probe"):
        run.train()


@pytest.mark.parametrize("by", ["a function", "an override"])
def test_a_loss_gets_the_number_of_items_of_its_step(tmp_path, by):
    """A loss that divides by it need not work without."""
    counts = []

    def mean(outputs, labels, num_items_in_batch=None):
        counts.append(int(num_items_in_batch))
        return torch.nn.functional.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch

    class Divides(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return mean(model(**inputs), inputs["labels"], num_items_in_batch)

    callback = WeightLoraCallback(GRADIENT)
    kind = Divides if by == "an override" else Trainer
    run = make_trainer(tmp_path, lora_bert(), callback, kind=kind, max_steps=1, gradient_accumulation_steps=2)
    run.compute_loss_func = None if by == "an override" else mean
    run.model_accepts_loss_kwargs = by == "an override"
    run.train()
    assert callback.selector.kept == chosen_by_hand((0, 1, 2, 3), 2)
    assert counts == [16, 16, 16, 16, 16, 16]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_batch_without_labels_adds_nothing_to_steps_that_accumulate(tmp_path, accumulation):
    """Alone, its loss is 0 / 0, as in a training step of this batch."""

    def mean(outputs, labels, num_items_in_batch=None):
        return torch.nn.functional.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch

    callback = WeightLoraCallback(GRADIENT)
    run = make_trainer(tmp_path, lora_bert(), callback, max_steps=1, gradient_accumulation_steps=accumulation)
    run.compute_loss_func = mean
    for row in run.train_dataset[:8]:
        row["labels"] = torch.tensor(-100)
    if accumulation == 1:
        with pytest.raises(TrainingError, match="the loss of batch 1 of the probe is nan"):
            run.train()
        return
    run.train()
    model = lora_bert()
    other = WeightLora(model, adamw(model), GRADIENT)
    other.probe([batch(1), batch(1), batch(2), batch(3)], per_step=2)  # its labels are all that its step has
    assert callback.selector.kept == other.kept
    assert callback.selector.scores == pytest.approx(other.scores, rel=1e-4)


@pytest.mark.parametrize("keep", [{"keep": 3}, {"keep": 3, "keep_memory": "1GiB"}], ids=["number", "memory"])
def test_the_choice_does_not_depend_on_where_the_labels_of_a_step_are(tmp_path, keep):
    """A part of a step with one label must not count as much as one with eight."""

    def mean(outputs, labels, num_items_in_batch=None):
        return torch.nn.functional.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch

    scores = []
    for accumulation in (1, 4):
        callback = WeightLoraCallback(WeightLoraConfig(selection="gradient", probe_batches=2, **keep))
        settings = {"gradient_accumulation_steps": accumulation, "per_device_train_batch_size": 16 // accumulation}
        run = make_trainer(tmp_path / str(accumulation), lora_bert(), callback, max_steps=1, **settings)
        run.compute_loss_func = mean
        for row in [*run.train_dataset[1:7], *run.train_dataset[20:23]]:
            row["labels"] = torch.tensor(-100)
        run.train()
        scores.append(torch.tensor([*callback.selector.scores.values()]))
    torch.testing.assert_close(*scores, rtol=1e-3, atol=1e-6)


def test_under_data_parallel_the_loss_is_the_mean_over_the_gpus(tmp_path):
    """Without a GPU, DataParallel calls the model once, so the losses of two are made here."""

    class Parallel(Trainer):
        def compute_loss(self, *args, **kwargs):
            return super().compute_loss(*args, **kwargs).expand(2)

    callback = WeightLoraCallback(GRADIENT)
    run = make_trainer(tmp_path, lora_bert(), callback, kind=Parallel, max_steps=1, per_device_train_batch_size=4)
    run.args._n_gpu = 2
    run._train_batch_size = run.args.train_batch_size
    run.train()
    assert callback.selector.kept == chosen_by_hand()


def test_what_a_trainer_notes_while_it_computes_losses_is_of_the_training_alone(tmp_path):
    """TRL's count the tokens and average metrics like this."""

    class Notes(Trainer):
        tokens = 0

        def compute_loss(self, model, inputs, *args, **kwargs):
            if not hasattr(self, "metrics"):
                self.metrics, self.losses = {"train": defaultdict(list)}, []
            loss = super().compute_loss(model, inputs, *args, **kwargs)
            self.tokens += inputs["input_ids"].numel()
            self.metrics["train"]["loss"].append(float(loss))
            self.losses.append(float(loss))
            self.log({"part": float(loss)})
            return loss

    run = make_trainer(tmp_path, lora_bert(), WeightLoraCallback(GRADIENT), kind=Notes, max_steps=2)
    run.metrics, run.losses = {"train": defaultdict(list)}, []
    metrics = run.metrics["train"]
    run.train()
    assert run.tokens == 2 * 80 and len(run.losses) == 2 and run.metrics["train"] is metrics == {"loss": run.losses}
    assert [entry["part"] for entry in run.state.log_history if "part" in entry] == run.losses
    assert "log" not in vars(run)


def test_a_trainer_may_divide_a_loss_by_what_it_has_averaged_so_far(tmp_path):
    class Averaging(Trainer):
        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            averages.append(float(self.average))
            self.average.lerp_(loss.detach(), 0.1)
            return loss / self.average

    averages = []
    run = make_trainer(tmp_path, lora_bert(), WeightLoraCallback(GRADIENT), kind=Averaging, max_steps=2)
    run.average = torch.ones(())
    run.train()
    assert len(averages) == 4 and averages[0] == averages[2] == 1, "training starts where the probe did"


def test_a_loss_that_ends_the_training_ends_the_training_alone(tmp_path):
    """Its second call is one of the probe."""

    class Ends(Trainer):
        calls = 0

        def compute_loss(self, *args, **kwargs):
            self.calls += 1
            if self.calls == 2:
                self.control.should_training_stop = True
            return super().compute_loss(*args, **kwargs)

    run = make_trainer(tmp_path, lora_bert(), WeightLoraCallback(GRADIENT), kind=Ends, max_steps=4)
    run.train()
    assert run.calls == run.state.global_step == 2


def test_what_objects_of_a_trainer_note_is_of_the_training_alone(tmp_path):
    """Meters, metrics, and a loss that divides by what it has averaged in a buffer."""
    torchmetrics = pytest.importorskip("torchmetrics", reason="the extra `lightning` is not installed")

    class Meter:
        def __init__(self):
            self.total, self.count = torch.zeros(()), 0

        def update(self, value):
            self.total, self.count = self.total + value, self.count + 1

    class Averaging(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("average", torch.ones(()))

        def forward(self, outputs, labels, num_items_in_batch=None):
            averages.append(float(self.average))
            loss = nn.functional.cross_entropy(outputs.logits, labels)
            self.average.lerp_(loss.detach(), 0.1)
            return loss / self.average

    class Noting(Trainer):
        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            for one in (self.meter, self.meters["train"], self.metric, self.metrics["loss"]):
                one.update(loss.detach())
            return loss

    averages, noted = [], []
    for callbacks in ([], [WeightLoraCallback(WeightLoraConfig(keep=12))]):
        run = make_trainer(tmp_path, lora_bert(), *callbacks, kind=Noting, max_steps=2)
        run.compute_loss_func = Averaging()
        run.meter, run.meters = Meter(), {"train": Meter()}
        run.metric = torchmetrics.MeanMetric()
        run.metrics = torchmetrics.MetricCollection({"loss": torchmetrics.MeanMetric()})
        run.train()
        assert run.meter.count == run.meters["train"].count == 2
        noted.append([float(run.meter.total), float(run.metric.compute()), float(run.metrics["loss"].compute())])
    assert len(averages) == 2 + 4 + 2 and averages[:2] == averages[-2:] and noted[0] == noted[1]


def test_bf16_probes_in_bf16(tmp_path):
    seen = []

    class Note(TrainerCallback):
        def on_train_begin(self, args: TrainingArguments, state, control, model=None, **kwargs):
            layer = model.base_model.model.bert.encoder.layer[0].attention.self.query
            layer.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))

    callback = WeightLoraCallback(GRADIENT)
    run = make_trainer(tmp_path, lora_bert(), Note(), callback, bf16=True, max_steps=1)
    run.train()
    assert set(seen) == {torch.bfloat16} and len(callback.selector.kept) == 3


@pytest.fixture
def fit(tmp_path):
    """Fits a LightningModule, and gives the callback."""
    lightning = pytest.importorskip("lightning.pytorch", reason="the extra `lightning` is not installed")
    from weightlora import WeightLoraLightningCallback

    def fit(module, *loaders, config=GRADIENT, **settings):
        callback = WeightLoraLightningCallback(config)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        trainer = lightning.Trainer(callbacks=[callback], default_root_dir=tmp_path, **quiet, **settings)
        trainer.fit(module, *loaders)
        return callback

    return fit


def test_lightning_chooses_what_a_plain_loop_chooses(fit):
    from lightning.pytorch import LightningModule
    from torchmetrics import MeanMetric, MetricCollection
    from torchmetrics.classification import BinaryAccuracy, BinaryPrecision, BinaryRecall

    seen = []

    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            self.model = lora_bert()
            self.losses, self.accuracy, self.mean = [], BinaryAccuracy(), MeanMetric()
            self.several = MetricCollection([BinaryPrecision(), BinaryRecall()])  # which share what they count

        def train_dataloader(self):
            return DataLoader(samples(), batch_size=8)

        def training_step(self, rows, index):
            seen.append((len(find_adapters(self.model)), rows["input_ids"][:, 0].tolist()))
            loss = self.model(**rows).loss
            self.log("loss", loss, on_step=True)
            self.losses.append(loss.detach())
            self.accuracy(rows["labels"], rows["labels"])
            self.mean.update(loss.detach())
            self.several.update(rows["labels"], rows["labels"])
            return loss

        def configure_optimizers(self):
            return adamw(self.model)

    module = Module()
    assert fit(module, max_steps=3).selector.kept == chosen_by_hand()
    firsts = [batch(step)["input_ids"][:, 0].tolist() for step in range(3)]
    assert seen == [(12, firsts[0]), (12, firsts[1]), *((3, first) for first in firsts)]

    assert len(module.losses) == module.mean.update_count == 3 and module.accuracy.tp + module.accuracy.tn == 24
    assert module.mean.compute() == pytest.approx(sum(module.losses) / 3)
    ones = sum(int(batch(step)["labels"].sum()) for step in range(3))
    assert module.several.compute() == {"BinaryPrecision": 1, "BinaryRecall": 1}
    assert [int(metric.tp) for metric in module.several.values()] == [ones, ones]

    several = Module()
    loaders = {"one": several.train_dataloader(), "other": several.train_dataloader()}
    with pytest.raises(
        ConfigError, match=r"^the training set is a dict of 2 data loaders, and selection='gradient' re"
    ):
        fit(several, loaders, max_steps=3)

    manual = Module()
    manual.automatic_optimization = False
    with pytest.raises(ConfigError, match=r"^Module optimizes manually, so its training_step has no loss: set selec"):
        fit(manual, max_steps=3)


def test_lightning_prepares_batches_and_calls_the_step_as_in_training(fit):
    """Some modules finish their batches in a hook, and some steps take no number of the batch."""
    from lightning.pytorch import LightningModule

    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            self.model = lora_bert()

        def train_dataloader(self):
            data = [{name: value for name, value in row.items() if name != "labels"} for row in samples()]
            return DataLoader(data, batch_size=8)

        def on_before_batch_transfer(self, rows, dataloader_idx):
            return rows | {"labels": rows["input_ids"][:, 0] % 2}

        def training_step(self, rows):
            return self.model(**rows).loss

        def configure_optimizers(self):
            return adamw(self.model)

    assert fit(Module(), max_steps=1).selector.kept == chosen_by_hand()


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_lightning_gives_batches_the_precision_of_the_model(fit, precision):
    from lightning.pytorch import LightningModule

    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            base = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
            self.model = get_peft_model(base, LoraConfig(r=2, target_modules=["0", "2"]))

        def training_step(self, rows):
            seen.append(rows.dtype)
            return self.model(rows).square().mean()

        def configure_optimizers(self):
            return adamw(self.model)

    seen, config = [], WeightLoraConfig(keep=1, probe_batches=2)
    loader = DataLoader(torch.randn(16, 8), batch_size=4)
    callback = fit(Module(), loader, config=config, precision=precision, max_steps=1)
    assert len(callback.selector.kept) == 1
    assert seen == [torch.bfloat16 if precision == "bf16-true" else torch.float64] * 3


def test_lightning_gets_back_what_a_loss_outside_of_the_model_changed(fit):
    from lightning.pytorch import LightningModule

    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            self.model, self.norm, self.average = lora_bert(), nn.BatchNorm1d(2), torch.ones(())
            self.register_buffer("weights", torch.tensor([1.0, 2.0]))
            self.register_buffer("calls", torch.zeros(()))

        def training_step(self, rows, index):
            seen.append([float(self.average), float(self.calls), self.norm.running_mean.tolist()])
            self.calls = self.calls + 1
            found = nn.functional.cross_entropy(self.norm(self.model(**rows).logits), rows["labels"], self.weights)
            self.average.lerp_(found.detach(), 0.1)
            return found / self.average

        def configure_optimizers(self):
            return adamw(self.model)

    seen = []
    callback = fit(Module(), DataLoader(samples(), batch_size=8), max_steps=2)
    assert len(callback.selector.kept) == 3 and len(seen) == 4 and seen[2] == seen[0] == [1.0, 0.0, [0.0, 0.0]]


def test_a_compiled_trainer_is_refused_with_a_budget_of_time(tmp_path):
    config = WeightLoraConfig(keep_step_time=0.5, select_steps=2)
    arguments = {"torch_compile": True, "torch_compile_backend": "eager"}
    run = make_trainer(tmp_path, lora_bert(), WeightLoraCallback(config), kind=Trainer, **arguments)
    with pytest.raises(
        ConfigError, match=r"^keep_step_time measures steps in one process, without torch.compile: choose"
    ):
        run.train()


def test_a_trainer_under_bf16_keeps_a_budget_of_time(tmp_path, monkeypatch):
    """By a clock that moves when it is read, so that a busy machine changes nothing."""
    ticks = itertools.count()
    monkeypatch.setattr("weightlora.costs.seconds.time.perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr("weightlora.costs.seconds.STEPS", 1)
    callback = WeightLoraCallback(WeightLoraConfig(keep_step_time=0.9, keep=2, select_steps=2))
    make_trainer(tmp_path, lora_bert(), callback, kind=Trainer, bf16=True).train()
    assert len(callback.selector.kept) == 2 and callback.selector.limit.costs.resource == "step_time"
