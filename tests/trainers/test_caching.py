"""`PrefixCacheCallback`: it begins after the choice, changes no loss, and a killed run goes on with its cache."""

import signal
from pathlib import Path
from unittest import mock

import pytest
import torch
from datasets import Dataset, Features, IterableDataset, List, Value
from huggingface_hub.utils import filter_repo_objects
from models import lora_bert, training_arguments
from prefixes import SIZE, STEPS, examples, padded, upper_bert
from processes import fork_server, launch, outcomes
from transformers import Trainer, TrainerControl, TrainerState

from weightlora import PrefixCacheCallback, WeightLoraCallback, WeightLoraConfig, WeightLoraTrainer
from weightlora.errors import ConfigError, DataError, ModelError
from weightlora.trainers.caching import FOLDER

pytestmark = pytest.mark.filterwarnings("ignore:the adapters are chosen after only")
EPOCHS = 4
UPPER = WeightLoraConfig(keep=2, select_steps=STEPS, selection="random", seed=1)  # keeps two of block 3
LOWEST = WeightLoraConfig(keep=2, select_steps=STEPS, selection="random", seed=0)  # keeps two of block 0


def collate(rows: list[dict]) -> dict[str, torch.Tensor]:
    return padded([torch.tensor(row["input_ids"]) for row in rows])


def build(directory, *callbacks, model=None, kind=Trainer, **settings) -> Trainer:
    """Four epochs of three steps, on shuffled rows."""
    rows = Dataset.from_list([{"input_ids": row.tolist()} for row in examples()])
    settings = {
        "per_device_train_batch_size": SIZE,
        "num_train_epochs": EPOCHS,
        "save_strategy": "no",
        "remove_unused_columns": False,
    } | settings
    torch.manual_seed(5)
    return kind(
        lora_bert(layers=4) if model is None else model,
        training_arguments(directory, **settings),
        train_dataset=rows,
        eval_dataset=rows.select(range(4)),
        data_collator=collate,
        callbacks=list(callbacks),
    )


def losses(run: Trainer) -> list[float]:
    return [entry["loss"] for entry in run.state.log_history if "loss" in entry]


@pytest.mark.parametrize("ours_first", [False, True])
def test_it_begins_after_the_choice_and_changes_no_loss(tmp_path, ours_first):
    plain = build(tmp_path / "plain", WeightLoraCallback(UPPER), eval_strategy="epoch")
    plain.train()
    caching, selecting = PrefixCacheCallback(tmp_path / "kept"), WeightLoraCallback(UPPER)
    callbacks = [caching, selecting] if ours_first else [selecting, caching]
    run = build(tmp_path / "cached", *callbacks, eval_strategy="epoch")
    run.train()
    assert losses(run) == pytest.approx(losses(plain), abs=1e-5) and len(losses(run)) == EPOCHS * STEPS
    evaluated = [[e["eval_loss"] for e in one.state.log_history if "eval_loss" in e] for one in (run, plain)]
    assert evaluated[0] == pytest.approx(evaluated[1], abs=1e-5)
    cache = caching.cache
    assert (cache.first, cache.fills, cache.reads) == (3, STEPS, 2 * STEPS)
    assert not any("forward" in vars(module) for module in run.model.modules())
    assert (tmp_path / "kept/block-3/process-0/states.bin").stat().st_size > 0


def test_its_own_directory_is_deleted_at_the_end(tmp_path):
    caching, seen = PrefixCacheCallback(), []
    run = build(tmp_path, WeightLoraCallback(UPPER), caching)
    close = caching.close
    caching.close = lambda: (seen.append((tmp_path / FOLDER / "block-3").is_dir()), close())
    run.train()
    assert seen == [False, True] and not (tmp_path / FOLDER).exists()


@pytest.mark.parametrize("local", [True, False])
def test_the_first_process_of_each_machine_deletes_it(tmp_path, local):
    """Machines may have disks of their own."""
    folder = tmp_path / FOLDER / "block-2" / "process-4"
    folder.mkdir(parents=True)
    (folder / "identity.json").touch()
    state = TrainerState(is_local_process_zero=local, is_world_process_zero=False)
    PrefixCacheCallback().on_train_end(training_arguments(tmp_path), state, TrainerControl())
    assert folder.exists() != local


def test_files_of_others_in_its_directory_stay(tmp_path):
    (tmp_path / FOLDER / "block-1").mkdir(parents=True)
    (tmp_path / FOLDER / "block-1" / "notes.txt").write_text("mine")
    build(tmp_path, WeightLoraCallback(UPPER), PrefixCacheCallback()).train()
    left = sorted(path.relative_to(tmp_path / FOLDER).as_posix() for path in (tmp_path / FOLDER).rglob("*"))
    assert left == ["block-1", "block-1/notes.txt"]


def test_plain_lora_begins_at_the_first_step(tmp_path):
    caching = PrefixCacheCallback()
    build(tmp_path, caching, model=upper_bert()).train()
    assert (caching.cache.first, caching.cache.fills, caching.cache.reads) == (2, STEPS, (EPOCHS - 1) * STEPS)


def test_block_0_that_keeps_an_adapter_is_a_warning_and_the_training_goes_on(tmp_path):
    caching = PrefixCacheCallback()
    run = build(tmp_path, WeightLoraCallback(LOWEST), caching)
    with pytest.warns(UserWarning, match=r"^The training goes on without the prefix cache: block 0 trains"):
        run.train()
    assert caching.cache is None and run.state.global_step == EPOCHS * STEPS


def test_a_model_that_the_first_batch_shows_to_be_unfit_is_a_warning_and_the_training_goes_on(tmp_path):
    def noisy():
        model = upper_bert()
        layer = model.get_base_model().bert.encoder.layer[0]
        forward = layer.forward

        def noise(*args, **kwargs):
            out = forward(*args, **kwargs)
            return out + 0.1 * torch.randn_like(out)

        layer.forward = noise
        return model

    plain, caching = build(tmp_path / "plain", model=noisy()), PrefixCacheCallback()
    plain.train()
    run = build(tmp_path / "cached", caching, model=noisy())
    with pytest.warns(UserWarning, match=r"without the prefix cache: the hidden states at block 2 differ by 0\."):
        run.train()
    assert losses(run) == losses(plain) and (caching.cache.fills, caching.cache.reads) == (0, 0)


def test_several_rows_for_each_example_are_read(tmp_path):
    def pairs(rows: list[dict]) -> dict[str, torch.Tensor]:
        texts = [torch.tensor(row["input_ids"]) for row in rows]
        return padded(texts + [text.flip(0) for text in texts])

    caching = PrefixCacheCallback()
    run = build(tmp_path, caching, model=upper_bert())
    run.data_collator = pairs
    run.train()
    assert (caching.cache.fills, caching.cache.reads) == (STEPS, (EPOCHS - 1) * STEPS)


def test_rows_that_change_in_each_epoch_switch_it_off_after_the_second_one(tmp_path):
    caching, calls = PrefixCacheCallback(), []

    def changing(rows: list[dict]) -> dict[str, torch.Tensor]:
        calls.append(1)
        return padded([torch.randint(4, 50, (8,), generator=torch.Generator().manual_seed(len(calls))) for _ in rows])

    run = build(tmp_path, caching, model=upper_bert())
    run.data_collator = changing
    with pytest.warns(UserWarning, match="0 of 12 rows of an epoch came again"):
        run.train()
    assert (caching.cache.fills, caching.cache.reads) == (2 * STEPS, 0)


def test_a_stream_is_not_read_before_it_trains(tmp_path):
    read = []

    def rows():
        for row in examples() * 50:
            read.append(1)
            yield {"input_ids": row.tolist()}

    run = build(tmp_path, PrefixCacheCallback(), model=upper_bert(), max_steps=3)
    run.train_dataset = IterableDataset.from_generator(rows, features=Features({"input_ids": List(Value("int64"))}))
    run.train()
    assert len(read) < 50


def test_bad_input_is_refused_before_the_first_step(tmp_path):
    def refused(error, message, caching, **settings):
        run = build(tmp_path / "out", WeightLoraCallback(UPPER), caching, **settings)
        with pytest.raises(error, match=message):
            run.train()
        assert run.state.global_step == 0

    tokens = sum(map(len, examples()))
    room = rf"^the hidden states of {tokens} tokens take up to {tokens * 64:,} bytes, and .* may take 100:"
    refused(DataError, room, PrefixCacheCallback(max_bytes=100))
    with pytest.raises(ConfigError, match=r"^max_bytes='much' is not an amount of memory"):
        PrefixCacheCallback(max_bytes="much")
    refused(ModelError, "BertEmbeddings.dropout has p=0.1", PrefixCacheCallback(), model=lora_bert(4, dropout=0.1))
    build(tmp_path / "a", PrefixCacheCallback(tmp_path / "kept"), model=upper_bert()).train()
    other = lora_bert(layers=4)
    torch.nn.init.ones_(other.get_base_model().bert.embeddings.LayerNorm.bias)
    message = r"block-2 has hidden states of another model \(its weights differ\)"
    refused(DataError, message, PrefixCacheCallback(tmp_path / "kept"), model=other)


@pytest.mark.parametrize("name", ["deepspeed", "fsdp", "torch_compile", "n_gpu", "neftune_noise_alpha"])
def test_engines_that_run_blocks_in_another_way_are_refused(tmp_path, name):
    caching, run = PrefixCacheCallback(), build(tmp_path, model=upper_bert())

    class Arguments:
        deepspeed = fsdp = torch_compile = neftune_noise_alpha = None
        n_gpu = 1

    setattr(Arguments, name, 2)
    messages = {
        "n_gpu": "^DataParallel on 2 GPUs",
        "neftune_noise_alpha": "^neftune_noise_alpha=2 adds new noise to the",
    }
    message = messages.get(name, f"^{name}=2 does not go with a prefix cache")
    with pytest.raises(ConfigError, match=message):
        caching.on_train_begin(Arguments(), run.state, run.control, model=run.model)


def test_trainer_uploads_nothing_of_it(tmp_path):
    run = build(tmp_path, PrefixCacheCallback(), model=upper_bert(), num_train_epochs=2, save_strategy="epoch")
    run.args.push_to_hub, run.hub_model_id, uploads = True, "someone/model", []

    def upload(folder_path, ignore_patterns, **_):
        files = [path.relative_to(folder_path).as_posix() for path in Path(folder_path).rglob("*") if path.is_file()]
        uploads.append(list(filter_repo_objects(files, ignore_patterns=ignore_patterns)))
        return mock.Mock()

    run.push_in_progress = None
    with mock.patch("transformers.trainer.hf_api", lambda: mock.Mock(upload_folder=upload)):
        run.train()
    assert uploads and all("adapter_model.safetensors" in files for files in uploads)
    assert not [file for files in uploads for file in files if "block-" in file]


KILLED = """
import os, sys
sys.path[:0] = [{tests!r}, {here!r}]
import torch
torch.set_num_threads(1)
from test_caching import UPPER, build
from transformers import TrainerCallback
from weightlora import PrefixCacheCallback, WeightLoraTrainer, WeightLoraCallback

class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 8:
            os.kill(os.getpid(), 9)

build({out!r}, WeightLoraCallback(UPPER), PrefixCacheCallback(), Kill(), kind=WeightLoraTrainer,
      save_strategy="steps", save_steps=1).train()
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_with_its_cache(tmp_path):
    plain = build(tmp_path / "plain", WeightLoraCallback(UPPER), kind=WeightLoraTrainer)
    plain.train()
    here, out = Path(__file__).parent, tmp_path / "killed"
    done = fork_server().run("-c", KILLED.format(tests=str(here.parent), here=str(here), out=str(out)))
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    index = out / FOLDER / "block-3/process-0/index.jsonl"
    assert len(index.read_text().splitlines()) == len(examples()), "the second epoch kept each example"
    caching = PrefixCacheCallback()
    run = build(out, WeightLoraCallback(UPPER), caching, kind=WeightLoraTrainer)
    run.train(resume_from_checkpoint=True)
    assert losses(run) == pytest.approx(losses(plain), abs=1e-5)
    assert caching.cache.fills == 0 and caching.cache.reads in (EPOCHS * STEPS - 7, EPOCHS * STEPS - 8)


@pytest.mark.slow
def test_two_processes_read_what_the_other_one_has_met(tmp_path):
    launch("caching", 2, str(tmp_path))
    for one in outcomes(tmp_path, 2):
        assert one["cached"] == pytest.approx(one["plain"], abs=1e-5)
        assert one["fills"] + one["reads"] == 3 * one["steps"] and one["reads"] >= one["steps"]
    assert not (tmp_path / "cached" / FOLDER).exists()
