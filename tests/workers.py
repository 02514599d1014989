"""What the processes of the tests in `engines` do. Run by torchrun, on gloo."""

import gc
import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
import torch.distributed as dist
from models import adamw, batch, lora_bert, samples, training_arguments
from peft import PeftModel
from safetensors.torch import load_file
from torch.nn.parallel import DistributedDataParallel

from weightlora import WeightLora, WeightLoraConfig, WeightLoraTrainer, save_run
from weightlora.adapters import unwrap_model
from weightlora.optimizers import unwrap_optimizer
from weightlora.tensors import local, whole

GLOBAL_BATCH = 8
BY_ACCELERATE = "ACCELERATE_USE_FSDP" in os.environ  # later it is, whoever launched


def rank() -> int:
    return int(os.environ.get("RANK", 0))


def world() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


def write_outcome(directory: str, found: object) -> None:
    """For `processes.outcomes`."""
    (Path(directory) / f"rank-{rank()}.json").write_text(json.dumps(found))


def share(step: int) -> dict[str, torch.Tensor]:
    """This process's part of the global batch."""
    size = GLOBAL_BATCH // world()
    return {key: value[rank() * size : (rank() + 1) * size] for key, value in batch(step, GLOBAL_BATCH).items()}


def wrap(model, unused):
    dist.init_process_group("gloo") if not dist.is_initialized() else None
    return DistributedDataParallel(model, find_unused_parameters=unused == "find_unused")


def reduced_parameters(ddp) -> int:
    """Numbers in the reducer's buckets; 0 without DDP."""
    if not isinstance(ddp, DistributedDataParallel):
        return 0
    return sum(bucket.buffer().numel() for bucket in ddp.reducer._get_zeros_like_grad_buckets())


def trainable(model) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def probe(selector) -> None:
    """Give a selection that probes this process's part of the batches."""
    if selector.config.selection == "gradient":
        selector.probe(map(share, range(2)))


def save_and_compare(selector, place: Path) -> float:
    """Call `save_run`, and return the largest difference of what it has written from what is trained."""
    place = place.with_name(f"{place.name} {rank()}")
    assert save_run(selector, place) == place.resolve()
    own = {name: whole(p.detach()) for name, p in unwrap_model(selector.model).named_parameters() if p.requires_grad}
    if rank():  # the first process writes
        return 0.0 if not place.exists() else float("inf")
    saved = load_file(place / "adapter" / "adapter_model.safetensors")
    for part in (".modules_to_save", ".default"):
        own = {name.replace(part, ""): value for name, value in own.items()}
    own = {name.replace("magnitude_vector.weight", "magnitude_vector"): value for name, value in own.items()}
    assert own.keys() == saved.keys()
    return max((own[name] - saved[name]).abs().max().item() for name in own)


def loop(rules: str, directory: str, unused: str) -> None:
    """A plain loop for each of the rules, under DDP where there are several processes."""
    found = {}
    for name, settings in json.loads(Path(rules).read_text()).items():
        model = lora_bert(use_dora="DoRA" in name)
        ddp = wrap(model, unused) if world() > 1 else model
        optimizer = adamw(model)
        entry = {"reduced_before": reduced_parameters(ddp), "trainable_before": trainable(model), "losses": []}
        seed = settings.get("seed", 0) + rank()  # that of the first process counts
        selector = WeightLora(ddp, optimizer, WeightLoraConfig(**settings | {"seed": seed}))
        watched = [p for p in model.parameters() if p.requires_grad and rank() == 0]  # as W&B does, on the first alone
        hooks = [parameter.register_hook(lambda gradient: None) for parameter in watched]
        probe(selector)
        for hook in hooks:
            hook.remove()
        for step in range(8):
            loss = ddp(**share(step)).loss
            loss.backward()
            optimizer.step()
            selector.step()
            optimizer.zero_grad()
            entry["losses"].append(loss.item())
        entry |= {"reduced_after": reduced_parameters(ddp), "trainable_after": trainable(model)}
        entry |= {
            "kept": selector.kept,
            "scores": list(selector.scores.values()),
            "weights": sum(p.double().sum().item() for p in model.parameters()),
            "unlike_saved": save_and_compare(selector, Path(directory) / f"run of {name}"),
        }
        found[name] = entry
    write_outcome(directory, found)


CHOICE = 3  # step of the choice, of 8
WAYS = {
    "plain": {},
    "static_graph": {"static_graph": True},
    "static_graph and find_unused": {"static_graph": True, "find_unused_parameters": True},
    "gradient_as_bucket_view": {"gradient_as_bucket_view": True},
    "gradient_as_bucket_view and zeros": {"gradient_as_bucket_view": True},
    "accumulation": {},
    "accumulation and find_unused": {"find_unused_parameters": True},
    "accumulation and gradient_as_bucket_view": {"gradient_as_bucket_view": True},
    "accumulation and static_graph": {"static_graph": True},
    "fp16 hook": {},
    "built-in fp16 hook": {},
    "PowerSGD hook": {},
    "gc.freeze": {},
}


def ways(directory: str) -> None:
    """A plain loop under DDP, in every way that it can be set up; `apart` is how far the processes' weights are."""
    dist.init_process_group("gloo")
    found = {}
    for way, settings in WAYS.items():
        model = lora_bert()
        ddp = DistributedDataParallel(model, **settings)
        at_work = hook_(ddp, way)
        if way == "gc.freeze":  # as before a fork: the garbage collector then does not show what is there
            gc.freeze()
        optimizer = adamw(model)
        selector = WeightLora(ddp, optimizer, WeightLoraConfig(keep=3, select_steps=CHOICE))
        entry = found[way] = {"losses": [], "apart": [], "hook": []}
        for step in range(8):
            parts = [share(step)]
            if "accumulation" in way and step:  # torch cannot record a static graph without synchronisation
                parts = [{key: value[i::2] for key, value in parts[0].items()} for i in range(2)]
            loss = 0.0
            for part in parts:
                with nullcontext() if part is parts[-1] else ddp.no_sync():
                    one = ddp(**part).loss / len(parts)
                    one.backward()
                    loss += one.item()
            optimizer.step()
            selector.step()
            optimizer.zero_grad(set_to_none="zeros" not in way)
            entry["losses"].append(loss)
            entry["apart"].append(apart(model))
            entry["hook"].append(at_work())
        entry["kept"] = selector.kept
        gc.unfreeze()
    write_outcome(directory, found)


def hook_(ddp, way: str):
    """Register the communication hook of a way; returns what tells that it is at work."""
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
    from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook

    if way == "fp16 hook":
        ran = []

        def hook(state, bucket):
            ran.append(bucket.index())
            return default_hooks.fp16_compress_hook(state, bucket)

        ddp.register_comm_hook(None, hook)
        return lambda: len(ran)
    if way == "built-in fp16 hook":
        ddp._register_builtin_comm_hook(dist.BuiltinCommHookType.FP16_COMPRESS)
        return lambda: ddp.logger._get_ddp_logging_data().strs_map.get("comm_hook")
    if way == "PowerSGD hook":
        state = PowerSGDState(None, matrix_approximation_rank=2, start_powerSGD_iter=2, min_compression_rate=1)
        ddp.register_comm_hook(state, powerSGD_hook)
        return lambda: len(state.error_dict)
    return lambda: 0


def apart(model) -> float:
    """The largest difference of a trainable number between processes."""
    own = torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])
    everywhere = [torch.empty_like(own) for _ in range(world())]
    dist.all_gather(everywhere, own)
    return max((own - other).abs().max().item() for other in everywhere)


def joined(directory: str, *batches: str) -> None:
    """Uneven inputs under DDP's `join()`: the last process has so many batches, and the others have 8."""
    dist.init_process_group("gloo")
    found = []
    for own in map(int, batches):
        model = lora_bert()
        ddp = DistributedDataParallel(model, find_unused_parameters=own % 2 == 0)
        optimizer = adamw(model)
        selector = WeightLora(ddp, optimizer, WeightLoraConfig(keep=3, select_steps=CHOICE))
        with ddp.join():
            for step in range(own if rank() else 8):
                ddp(**share(step)).loss.backward()
                optimizer.step()
                selector.step()
                optimizer.zero_grad()
        found.append({"kept": selector.kept, "apart": apart(model), "trainable": trainable(model)})
    write_outcome(directory, found)


def late(directory: str) -> None:
    """A choice before DDP wraps the model, and then uneven inputs under its `join()`."""
    dist.init_process_group("gloo")
    found = []
    for batches in (1, 2, 3):
        model = lora_bert()
        optimizer = adamw(model)
        selector = WeightLora(model, optimizer, WeightLoraConfig(keep=3, probe_batches=2))
        selector.probe(map(share, range(2)))
        ddp = DistributedDataParallel(model)
        with ddp.join():
            for step in range(batches if rank() else 6):
                ddp(**share(step)).loss.backward()
                optimizer.step()
                selector.step()
                optimizer.zero_grad()
        found.append({"kept": selector.kept, "apart": apart(model)})
    write_outcome(directory, found)


def parted(directory: str) -> None:
    """One process gets other weights: after the choice, before it, or in one of two replicas of FSDP2's shards."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo")
    found = {}
    for case, (when, replicas) in {
        "after": (CHOICE, None),
        "a step after": (CHOICE + 1, None),
        "later": (CHOICE + 2, None),
        "before": (0, None),
        "replica": (CHOICE, 2),
        "shard": (CHOICE, 1),
    }.items():
        model = lora_bert()
        ddp = DistributedDataParallel(model) if replicas is None else model
        if replicas is not None:
            mesh = init_device_mesh("cpu", (replicas, world() // replicas), mesh_dim_names=("replicas", "shards"))
            fully_shard(model, mesh=mesh)
        optimizer = adamw(model)
        selector = WeightLora(ddp, optimizer, WeightLoraConfig(keep=3, select_steps=CHOICE))
        found[case] = {"stopped": "", "warned": ""}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                for step in range(6):
                    ddp(**share(step)).loss.backward()
                    optimizer.step()
                    if step == when and rank() == 1:
                        with torch.no_grad():
                            local(selector.adapters[-1].factors[1])[-1:].add_(1e-6)
                    selector.step()
                    optimizer.zero_grad()
            except ValueError as error:
                found[case]["stopped"] = f"{step}: {error}"
        found[case]["warned"] = "".join(str(one.message) for one in caught if "processes" in str(one.message))
    write_outcome(directory, found)


def sharded(rules: str, directory: str, unused: str) -> None:
    """A plain loop under FSDP2: every layer is a unit, and the rest is one."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (world(),))
    found = {}
    for name, settings in json.loads(Path(rules).read_text()).items():
        model = lora_bert(use_dora="DoRA" in name)
        for layer in model.base_model.model.bert.encoder.layer:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        optimizer = adamw(model)
        refused = ""
        try:
            WeightLora(model, optimizer, WeightLoraConfig(expand="qr", select_steps=4))
        except ValueError as error:
            refused = str(error)
        entry = {"bytes_before": shard_bytes(model), "losses": [], "refused": refused}
        evaluate(model)
        # One that ends early, after an evaluation, instead of at its last step.
        early = name == "credit"
        selector = WeightLora(model, optimizer, WeightLoraConfig(**settings | ({"select_steps": 40} if early else {})))
        probe(selector)
        for step in range(8):
            loss = model(**share(step)).loss
            loss.backward()
            optimizer.step()
            selector.step()
            optimizer.zero_grad()
            entry["losses"].append(loss.item())
            if early and step + 1 == settings["select_steps"]:
                evaluate(model)
                selector.finish()
        entry |= {"bytes_after": shard_bytes(model), "kept": selector.kept}
        evaluate(model)
        entry["unlike_saved"] = save_and_compare(selector, Path(directory) / f"run of {name}")
        entry["saved_whole"] = [name for name, value in model.state_dict().items() if not hasattr(value, "to_local")]
        found[name] = entry | {"scores": list(selector.scores.values())}
    model = lora_bert()
    for layer in model.base_model.model.bert.encoder.layer:
        fully_shard(layer.attention.self.query, mesh=mesh)
    fully_shard(model, mesh=mesh)
    try:
        WeightLora(model, adamw(model))
    except ValueError as error:
        found["a layer of LoRA by itself"] = str(error)
    write_outcome(directory, found)


def evaluate(model) -> None:
    """A forward pass without a backward pass: FSDP2 leaves what the outermost unit holds whole."""
    model.eval()
    with torch.no_grad():
        model(**share(0))
    model.train()


def shard_bytes(model) -> int:
    """Bytes of this process's parts of the parameters that FSDP2 holds."""
    from weightlora.engines.fsdp2 import _shard_groups

    shards = [shard.sharded_param.to_local() for group in _shard_groups(model) for shard in group.fsdp_params]
    return sum(shard.numel() * shard.element_size() for shard in shards)


def trainer(directory: str, unused: str, resume: str = "", callbacks: tuple = ()) -> None:
    """The Trainer, stopped by nothing, or resumed from step 3."""
    arguments = training_arguments(
        directory,
        per_device_train_batch_size=GLOBAL_BATCH // world(),
        max_steps=8,
        save_steps=3,
        train_sampling_strategy="sequential",
        ddp_find_unused_parameters=unused == "find_unused",
    )
    settings = {"train_dataset": samples(64), "weightlora": WeightLoraConfig(keep=3, select_steps=4)}
    run = WeightLoraTrainer(lora_bert(), arguments, callbacks=list(callbacks), **settings)
    run.model_accepts_loss_kwargs = False
    run.train(resume_from_checkpoint=str(Path(directory) / "checkpoint-3") if resume else None)
    losses = [entry["loss"] for entry in run.state.log_history if "loss" in entry]
    outcome = {"kept": run.weightlora.selector.kept, "losses": losses}
    write_outcome(directory, outcome)


def checkpoints(directory: str) -> None:
    """Checkpoints of two processes, of which the second is slow; then resumed, and once from different ones."""
    import shutil
    import time

    from transformers import Trainer

    from weightlora import WeightLoraCallback

    class Slow:
        def _save_rng_state(self, output_dir):
            time.sleep(0.5 * rank())
            super()._save_rng_state(output_dir)

    def build(place: Path, kind: type) -> Trainer:
        callback = WeightLoraCallback(WeightLoraConfig(keep=3, select_steps=2))
        arguments = training_arguments(place, per_device_train_batch_size=4, save_steps=1, max_steps=3)
        return type("SlowTrainer", (kind, Slow, Trainer), {})(
            lora_bert(layers=1), arguments, train_dataset=samples(32), callbacks=[callback]
        )

    from weightlora import WeightLoraTrainerMixin

    found = {}
    for name, kind in (("mixin", WeightLoraTrainerMixin), ("plain", type("Plain", (), {}))):
        place = Path(directory) / name
        build(place, kind).train()
        dist.barrier()
        shutil.copytree(place / "checkpoint-2", Path(directory) / f"{name}-{rank()}" / "checkpoint-2")
        if rank() == 0 and name == "mixin":
            shutil.copytree(place / "checkpoint-1", Path(directory) / "mixin-0" / "checkpoint-3")
        resumed = build(Path(directory) / f"{name}-{rank()}", kind)
        resumed.train(resume_from_checkpoint=True)  # mixin: checkpoint-3 is a broken one
        found[name] = resumed.state.global_step
        dist.barrier()
    if rank() == 1:
        shutil.rmtree(Path(directory) / "mixin-1" / "checkpoint-2")
        shutil.copytree(Path(directory) / "mixin" / "checkpoint-1", Path(directory) / "mixin-1" / "checkpoint-1")
    try:
        build(Path(directory) / f"mixin-{rank()}", WeightLoraTrainerMixin).train(resume_from_checkpoint=True)
    except ValueError as error:
        found["apart"] = str(error)
    for name, kind in (("mixin", WeightLoraTrainerMixin), ("plain", type("Plain", (), {}))):
        place = Path(directory) / f"broken {name}-{rank()}"
        shutil.copytree(Path(directory) / name / "checkpoint-2", place / "checkpoint-2")
        if rank() == 1:
            (place / "checkpoint-2" / "weightlora_state.json").unlink()
        for given in (True, str(place / "checkpoint-2")):
            try:
                build(place, kind).train(resume_from_checkpoint=given)
            except ValueError as error:
                found[f"{name} {given is True}"] = f"{type(error).__name__}: {error}"
    write_outcome(directory, found)


def lightning(settings: str, directory: str) -> None:
    """Lightning's Trainer."""
    from lightning.pytorch import Trainer

    sys.path.insert(0, str(Path(__file__).parent / "trainers"))
    from test_lightning import Module

    from weightlora.trainers.lightning import WeightLoraLightningCallback

    class Share(Module):
        def train_dataloader(self):
            return torch.utils.data.DataLoader([share(self.current_epoch)], batch_size=None)

    module, callback = Share(), WeightLoraLightningCallback(WeightLoraConfig(**json.loads(settings)))
    Trainer(
        callbacks=[callback],
        max_epochs=8,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        accelerator="cpu",
        devices=world(),
        strategy="ddp",
        logger=False,
        enable_checkpointing=False,
    ).fit(module)
    outcome = {"kept": callback.selector.kept, "losses": module.losses}
    write_outcome(directory, outcome)


def phased(rules: str, directory: str, version: str = "1") -> None:
    """The Trainer under FSDP, or alone, for each of the rules; for credit, resumed as well, and refused."""
    found = {}
    fsdp = {"version": int(version), **FSDP[version]}
    for name, settings in json.loads(Path(rules).read_text()).items():
        place = Path(directory) / name
        run = phased_trainer(place, settings, fsdp)
        run.train()
        run.save_model(str(place / "final"))
        found[name] = report(run) | {
            "trainable": 4 * sum(local(p).numel() for p in run.model.parameters() if p.requires_grad),
            "moments": sum(
                4 * local(state[moment]).numel()
                for state in ({} if run.optimizer is None else unwrap_optimizer(run.optimizer).state).values()
                for moment in ("exp_avg", "exp_avg_sq")
            ),
        }
    if world() > 1 and not BY_ACCELERATE:
        for when, step in (("before", 2), ("at", 3), ("after", 4)):
            run = phased_trainer(Path(directory) / "credit", PHASED_CREDIT, fsdp)
            run.train(resume_from_checkpoint=str(Path(directory) / "credit" / f"checkpoint-{step}"))
            losses = [entry["loss"] for entry in run.state.log_history if "loss" in entry]
            found["credit"][when] = {"kept": run.weightlora.selector.kept, "losses": losses}
        if version == "1":
            found["credit"]["bf16"] = [*of_16_bits(Path(directory) / "bf16", fsdp)]
        else:
            found["credit"]["plain"] = plain_after_choice(Path(directory) / "credit", fsdp)
        for what, config, settings in (("expand", {"expand": "qr"}, {}), ("save_only", {}, {"save_only_model": True})):
            try:
                phased_trainer(Path(directory) / "refused", PHASED_CREDIT | config, fsdp, **settings).train()
            except ValueError as error:
                found["credit"][what] = str(error)
        try:
            run = phased_trainer(Path(directory) / "credit", PHASED_CREDIT)
            run.train(resume_from_checkpoint=str(Path(directory) / "credit" / "checkpoint-4"))
        except ValueError as error:
            found["credit"]["without FSDP"] = str(error)
    write_outcome(directory, found)


PHASED_CREDIT = {"keep": 2, "select_steps": 3}
FSDP = {
    "1": {"state_dict_type": "FULL_STATE_DICT", "sync_module_states": False},
    "2": {"transformer_layer_cls_to_wrap": ["BertLayer"]},
}


def of_16_bits(place: Path, fsdp: dict) -> Iterator[dict]:
    """A model of 16 bits with mixed precision: choice and losses, whole and resumed from each of three steps."""
    for step in (None, 2, 3, 4):
        run = phased_trainer(place, PHASED_CREDIT, fsdp, lora_bert(layers=1).bfloat16(), bf16=True)
        run.train(resume_from_checkpoint=step and str(place / f"checkpoint-{step}"))
        losses = [entry["loss"] for entry in run.state.log_history if "loss" in entry]
        yield {"kept": run.weightlora.selector.kept, "losses": losses}


def plain_after_choice(place: Path, fsdp: dict) -> dict:
    """A plain Trainer that resumes after the choice, without `restore` and with it."""
    from transformers import Trainer

    from weightlora import WeightLoraCallback, restore

    found, checkpoint = {}, str(place / "checkpoint-4")
    for given in (False, True):
        run = phased_trainer(place, PHASED_CREDIT, fsdp)
        model = lora_bert(layers=1)
        if given:
            restore(model, checkpoint)
        callback = WeightLoraCallback(WeightLoraConfig(**PHASED_CREDIT))
        plain = Trainer(model, run.args, train_dataset=samples(64), callbacks=[callback])
        plain.model_accepts_loss_kwargs = False
        try:
            plain.train(resume_from_checkpoint=checkpoint)
            losses = [entry["loss"] for entry in plain.state.log_history if "loss" in entry]
            found |= {"kept": callback.selector.kept, "losses": losses}
        except ValueError as error:
            found["refused"] = str(error)
    return found


def report(run) -> dict:
    """What a Trainer has chosen and logged."""
    selector, entries = run.weightlora.selector, [entry for entry in run.state.log_history if "loss" in entry]
    keys = ("step", "epoch", "learning_rate", "weightlora/active_adapters", "weightlora/trainable_parameters")
    return {
        "kept": selector.kept,
        "losses": [entry["loss"] for entry in entries],
        "scores": list(selector.scores.values()),
        "logged": [[entry[key] for key in keys] for entry in entries],
    }


def phased_trainer(
    place: Path, settings: dict, fsdp: dict | None = None, model: PeftModel | None = None, **arguments
) -> WeightLoraTrainer:
    sharded = world() > 1 and "deepspeed" not in arguments and fsdp is not None
    if sharded and not BY_ACCELERATE:
        arguments |= {"fsdp": True, "fsdp_config": fsdp}
    usual = {
        "per_device_train_batch_size": GLOBAL_BATCH // world(),
        "max_steps": 6,
        "save_steps": 1,
        "train_sampling_strategy": "sequential",
    }
    arguments = training_arguments(place, **usual | arguments)
    if sharded:
        pretend_accelerator()
    config = WeightLoraConfig(**settings)
    model = lora_bert(layers=1) if model is None else model
    run = WeightLoraTrainer(model, arguments, train_dataset=samples(64), weightlora=config)
    run.model_accepts_loss_kwargs = False
    if sharded and run.accelerator.state.fsdp_plugin.fsdp_version == 1:
        run.accelerator.state.fsdp_plugin.optim_state_dict_config.offload_to_cpu = False
    return run


def zero(cases: str, directory: str) -> None:
    """The Trainer under DeepSpeed, or alone, for each of the cases: settings, arguments, what DeepSpeed is told."""
    arguments = {}
    if world() > 1:
        import deepspeed.ops

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # or it is compiled, for minutes
    found = {}
    for name, (settings, arguments, told) in json.loads(Path(cases).read_text()).items():
        place = Path(directory) / name.partition(", resumed at ")[0]
        if world() > 1:
            told = {"train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto"} | told
            arguments = arguments | {"deepspeed": told | {"gradient_clipping": "auto"}}
            if "per_device_train_batch_size" in arguments:
                arguments["per_device_train_batch_size"] //= world()
        try:
            run = phased_trainer(place, settings, **arguments)
            before = {name: set(vars(module)) for name, module in run.model.named_modules()}
            *_, at = name.rpartition(", resumed at ")
            run.train(resume_from_checkpoint=str(place / f"checkpoint-{at}") if at.isdecimal() else None)
            found[name] = report(run)
            run.save_model(str(place / "final"))
            found[name]["left"] = left_on(run, before)
            found[name]["trainable"] = trainable(run.model)
        except ValueError as error:
            found[name] = {"refused": str(error)}
        dist.barrier() if dist.is_initialized() else None
    write_outcome(directory, found)


def left_on(run, before: dict[str, set[str]]) -> list[str]:
    """What is on a model, given back by its engine, and was not there before, or is DeepSpeed's."""
    engine, known, left = run.weightlora.engine, set().union(*before.values()), []
    model = run.model if engine is None else engine.to_plain_(run.model)
    for name, module in model.named_modules():
        left += [f"{name}.{attribute}" for attribute in set(vars(module)) - known]
        hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        left += [f"{name} {hook}" for hook in hooks if "deepspeed" in (getattr(hook, "__module__", None) or "")]
        left += [f"{name} {type(module._parameters)}"] if type(module._parameters) is not dict else []
        for parameter in module._parameters.values():
            left += [f"{name} {parameter.shape}"] if parameter is not None and not parameter.numel() else []
            if parameter is not None and parameter.requires_grad:
                left += [f"{name} {attribute}" for attribute in vars(parameter)]
    return left


def pretend_accelerator() -> None:
    """Accelerate gives FSDP1 to GPUs only, and torch 2.13 frees what it "moved" from a CPU to a CPU."""
    from contextlib import nullcontext

    from accelerate.state import PartialState
    from accelerate.utils import DistributedType
    from torch.distributed.fsdp._flat_param import FlatParamHandle

    PartialState._shared_state |= {"distributed_type": DistributedType.MULTI_GPU, "device": torch.device("cpu")}
    FlatParamHandle.to_cpu = lambda self: nullcontext()


def disagree() -> None:
    """The processes have different budgets, whatever they were given."""
    ddp = wrap(lora_bert(), "no_unused")
    optimizer = adamw(ddp)
    selector = WeightLora(ddp, optimizer, WeightLoraConfig(keep=3, select_steps=1))
    selector._budget = WeightLoraConfig(keep=2 + rank(), select_steps=1).budget_for([*selector.sizes.values()])
    ddp(**share(0)).loss.backward()
    optimizer.step()
    selector.step()


DIFFERENT = {
    "total_steps": lambda rank: {"select_steps": 0.2},
    "rule": lambda rank: {"select_steps": 4, "selection": ["credit", "stoiht"][rank]},
    "probe": lambda rank: {"probe_batches": 2 + rank},
    "probe or not": lambda rank: {"selection": ["random", "gradient"][rank], "select_steps": 0},
    "rounds": lambda rank: {"select_steps": 4, "rounds": 1 + rank},
    "model": lambda rank: {"select_steps": 4},
    "seed": lambda rank: {"select_steps": 4, "seed": rank},
}


def differ(directory: str) -> None:
    """Each process gets settings, a length of the training or a model of its own; different seeds do no harm."""
    found = {}
    for case, settings in DIFFERENT.items():
        model = lora_bert(2 + rank() if case == "model" else 3)
        ddp = model if case == "model" else wrap(model, "find_unused")
        optimizer = adamw(ddp)
        try:
            config = WeightLoraConfig(keep=3, **settings(rank()))
            selector = WeightLora(ddp, optimizer, config, total_steps=20 + 5 * rank())
            if selector.needs_probe:
                selector.probe(map(share, range(4)))
            for step in range(5):
                ddp(**share(step)).loss.backward()
                optimizer.step()
                selector.step()
                optimizer.zero_grad()
            found[case] = str(len(selector.kept))
        except ValueError as error:
            found[case] = f"{type(error).__name__}: {error}"
        dist.barrier()
    write_outcome(directory, found)


def early(directory: str) -> None:
    """Selectors that were built before there were processes and DDP."""
    found, built = {}, {}
    rules = {"gradient": {"probe_batches": 2}, "credit": {"selection": "credit", "select_steps": 2}}
    for name, settings in rules.items():
        model = lora_bert()
        optimizer = adamw(model)
        built[name] = model, optimizer, WeightLora(model, optimizer, WeightLoraConfig(keep=3, **settings))
    for name, (model, optimizer, selector) in built.items():
        ddp = wrap(model, "no_unused")
        if selector.needs_probe:
            selector.probe(map(share, range(2)), lambda batch, ddp=ddp: ddp(**batch).loss)
        for step in range(5):
            ddp(**share(step)).loss.backward()
            optimizer.step()
            selector.step()
            optimizer.zero_grad()
        weights = sum(parameter.double().sum().item() for parameter in model.parameters())
        found[name] = [selector.kept, reduced_parameters(ddp), trainable(model), weights]
    write_outcome(directory, found)


def nan() -> None:
    """A gradient of one process is NaN: a gate's, and that of an adapter, after it was reduced."""
    for settings in ({"selection": "stoiht"}, {"selection": "credit"}, {"selection": "random"}):
        ddp = wrap(lora_bert(), "no_unused")
        optimizer = adamw(ddp)
        selector = WeightLora(ddp, optimizer, WeightLoraConfig(keep=3, select_steps=3, **settings))
        ddp(**share(0)).loss.backward()
        if rank() == 1:
            gates = getattr(selector._rule, "gates", None)
            spoiled = gates[0].omega if gates else selector.adapters[0].factors[1]
            spoiled.grad.fill_(float("nan"))
        try:
            optimizer.step()
            selector.step()
        except ValueError as error:
            print(f"{settings['selection']}: {error}", file=sys.stderr, flush=True)
        assert selector.step_count == 0 and not selector.history and len(selector.adapters) == 12
        assert all(parameter.isfinite().all() for parameter in ddp.parameters())
        dist.barrier()
    raise SystemExit(1)


def fail(directory: str) -> None:
    """One process fails in the probe, in what it does alone; then both choose in a model that does not fail."""
    found = {}
    odd = "\udcff" + "x" * 2**24  # a file's name that is not UTF-8, and more than a store takes
    for case in ("reading", "odd", "loss", "NaN", "stopped", "none"):
        ddp = wrap(lora_bert(), "find_unused")
        selector = WeightLora(ddp, adamw(ddp), WeightLoraConfig(keep=3, probe_batches=3))
        spoils = rank() == 1

        def read(case=case, spoils=spoils):
            for step in range(3):
                if spoils and step == 1 and case in ("reading", "odd"):
                    raise OSError("no such row" if case == "reading" else odd)
                yield step

        def loss(step, ddp=ddp, case=case, spoils=spoils):
            value = ddp(**share(step)).loss
            if spoils and step == 1 and case in ("loss", "stopped"):
                raise KeyboardInterrupt if case == "stopped" else IndexError("no such class")
            return value * float("nan") if spoils and step == 1 and case == "NaN" else value

        try:
            selector.probe(read(), loss)
        except BaseException as error:
            found[case] = f"{type(error).__name__}: {error}"[:2000]
        else:
            found[case] = selector.kept
    write_outcome(directory, found)


def die(directory: str) -> None:
    """One process is killed in the middle of the selection, after a checkpoint."""
    from transformers import TrainerCallback

    class Kill(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if rank() == 1 and state.global_step == 4:
                os.kill(os.getpid(), 9)

    trainer(directory, "find_unused", callbacks=(Kill(),))


def caching(directory: str) -> None:
    """A Trainer under DDP with and without a prefix cache; each epoch deals the examples anew."""
    sys.path.insert(0, str(Path(__file__).parent / "trainers"))
    from prefixes import upper_bert
    from test_caching import EPOCHS, build, losses

    from weightlora import PrefixCacheCallback

    found: dict = {}
    for name in ("plain", "cached"):
        callback = PrefixCacheCallback()
        callbacks = [callback] if name == "cached" else []
        place = Path(directory) / name
        arguments = {"per_device_train_batch_size": 2, "ddp_backend": "gloo"}
        run = build(place, *callbacks, model=upper_bert(), **arguments)
        run.train()
        found[name] = losses(run)
    found |= {"fills": callback.cache.fills, "reads": callback.cache.reads, "steps": run.state.global_step // EPOCHS}
    found["fills"] -= found["steps"]  # the first epoch
    write_outcome(directory, found)


if __name__ == "__main__":
    torch.set_num_threads(1)
    globals()[sys.argv[1]](*sys.argv[2:])
    # At times torch 2.13 hangs when the last thing that holds a gloo group is collected: a thread of gloo's wants the
    # interpreter, which waits for that thread. Nothing is left to do here.
    os._exit(0)
