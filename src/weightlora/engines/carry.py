"""What goes from one DeepSpeed engine to the next, which trains fewer parameters: weights, moments, learning rates.

DeepSpeed's own checkpoints hold flat partitions, which fit the same parameters only. So between two phases a file of
ours takes their place: the master weights and the moments of each parameter that stays, by name.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import ModelError, StateError
from ..files import write
from . import processes

CARRIED = "weightlora_optimizer.safetensors"
COUNTERS = ("global_steps", "global_samples", "skipped_steps")  # attributes of DeepSpeed's engine
WEIGHT = "weight"  # beside the names of moments


def write_carried(engine: Any, leaving: set[int], directory: str | Path) -> bool:
    """Write what the next engine needs, in all processes together; the first of them writes the file.

    Args:
        engine: DeepSpeed's.
        leaving: `id()` of the parameters that will not be there.
        directory: The checkpoint.
    """
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    link_moments_(engine.optimizer)
    moments, steps = moments_of(engine.optimizer)
    tensors = {}
    for name, parameter in trained(engine.module):
        if id(parameter) not in leaving:
            tensors[f"{WEIGHT}|{name}"] = _plain(safe_get_full_fp32_param(parameter))
            for moment in moments:
                tensors[f"{moment}|{name}"] = _plain(safe_get_full_optimizer_state(parameter, moment))
    schedule = engine.lr_scheduler
    facts = {
        "steps": steps,
        "rates": [group["lr"] for group in engine.optimizer.param_groups],
        "counters": {name: getattr(engine, name) for name in COUNTERS},
        "schedule": None if schedule is None else schedule.state_dict(),
    }
    if processes.is_first():
        metadata = {key: json.dumps(value) for key, value in facts.items()}
        folder = Path(directory) / f"global_step{engine.global_steps}"  # where Trainer looks for DeepSpeed's files
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / CARRIED, lambda path: save_file(tensors, path, metadata))
    return True


def put_back_(engine: Any, directory: str | Path) -> tuple[str, dict[str, Any]] | None:
    """Bring a new engine to where `write_carried` left the last one.

    Returns:
        What DeepSpeed's `load_checkpoint` returns; None, and nothing is changed, if the checkpoint is DeepSpeed's own.

    Raises:
        StateError: If the file is damaged, or is of other parameters.
    """
    path = next(iter(Path(directory).glob(f"global_step*/{CARRIED}")), None)
    if path is None:
        return None
    try:
        with safe_open(path, "pt") as file:
            facts = {key: json.loads(value) for key, value in file.metadata().items()}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError, ValueError, AttributeError) as error:
        raise StateError(f"{path} is damaged ({error}): resume from another checkpoint.") from error
    parameters = dict(trained(engine.module))
    saved = {key.partition("|")[2] for key in tensors}
    if strange := sorted(saved ^ parameters.keys()):
        raise StateError(
            f"{path} and this model do not train the same parameters ({strange[0]!r} is in one of them only): build "
            "the model as in the first run."
        )
    create_moments_(engine)
    with torch.no_grad(), gathered(engine, list(parameters.values()), changed=True):
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"{WEIGHT}|{name}"])
    for key, value in tensors.items():
        moment, _, name = key.partition("|")
        set_whole_(parameters[name], value, None if moment == WEIGHT else moment)
    optimizer = engine.optimizer
    for holder in (*optimizer.state.values(), *optimizer.param_groups):
        if "step" in holder:
            old = holder["step"]
            holder["step"] = torch.full_like(old, facts["steps"]) if torch.is_tensor(old) else facts["steps"]
    if facts["schedule"] is not None and engine.lr_scheduler is not None:
        engine.lr_scheduler.load_state_dict(facts["schedule"])
    for group, rate in zip(optimizer.param_groups, facts["rates"], strict=True):
        group["lr"] = rate
    for name, count in facts["counters"].items():
        setattr(engine, name, count)
    return str(path.parent), {}


def drop_carried(directory: str | Path) -> None:
    """Remove the file that an earlier run left in a checkpoint of the same name."""
    for path in Path(directory).glob(f"global_step*/{CARRIED}"):
        path.unlink()


def trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Trainable parameters, by names that do not depend on which adapters of nested layers are there."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name.replace(".base_layer", ""), parameter


def moments_of(optimizer: Any) -> tuple[list[str], int]:
    """Names of the moments that DeepSpeed can hand out for each parameter, and the optimizer's count of steps.

    Raises:
        ModelError: If the optimizer has state of another shape.
    """
    names, steps = set(), [int(group["step"]) for group in optimizer.param_groups if "step" in group]
    for flat, state in optimizer.state.items():
        for name, value in state.items():
            if name == "step":
                steps.append(int(value))
            elif torch.is_tensor(value) and value.shape == flat.shape:
                names.add(name)
            elif value is not None:
                raise ModelError(
                    f"safe_get_full_optimizer_state gives no {name!r} of the optimizer, which is not one number per "
                    "weight, so it could not go on after the choice: train with AdamW."
                )
    return sorted(names), max(steps, default=0)


def link_moments_(optimizer: Any) -> None:
    """Let DeepSpeed's functions find the moments of all groups of parameters, once the optimizer has made a step.

    ZeRO 1 and 2 (0.19) look for them after the step of the first group, and do not look again.
    """
    from deepspeed.utils import lazy_init_hp_params_optimizer_state

    flat_groups = getattr(optimizer, "single_partition_of_fp32_groups", ())  # ZeRO 3 has no links
    for parameters, flat in zip(getattr(optimizer, "bit16_groups", ()), flat_groups, strict=True):
        lazy_init_hp_params_optimizer_state(parameters, flat, optimizer.state)


def create_moments_(engine: Any) -> None:
    """Let the optimizer create its moments, which DeepSpeed's setters need: a step along 0, at a rate of 0."""
    groups = engine.optimizer.param_groups
    rates = [group["lr"] for group in groups]
    parameters = [parameter for _, parameter in trained(engine.module)]
    try:
        for group in groups:
            group["lr"] = 0.0
        engine.set_gradient_accumulation_boundary(True)
        with gathered(engine, parameters):
            engine.backward(torch.stack([(one * 0.0).sum().float() for one in parameters]).sum(), scale_wrt_gas=False)
        engine.optimizer.step()
        engine.optimizer.zero_grad()
        link_moments_(engine.optimizer)
    finally:
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate


def gathered(engine: Any, parameters: list[Any], changed: bool = False) -> contextlib.AbstractContextManager[Any]:
    """In this context parameters are whole; ZeRO 3 then takes over the values of the first process, if `changed`."""
    if engine.zero_optimization_stage() != 3:
        return contextlib.nullcontext()
    import deepspeed

    context: contextlib.AbstractContextManager[Any]
    context = deepspeed.zero.GatheredParameters(parameters, modifier_rank=0 if changed else None)
    return context


def set_whole_(parameter: Any, value: Tensor, moment: str | None) -> None:
    """Set a master weight, or a moment, to a tensor of the parameter's whole shape."""
    from deepspeed import utils

    value = value.to(parameter.device)
    if not hasattr(parameter, "ds_id"):
        if moment is None:
            utils.safe_set_full_fp32_param(parameter, value)
        else:
            utils.safe_set_full_optimizer_state(parameter, value, moment)
        return
    # ZeRO 3's setters of whole tensors fail where the number of processes does not divide the number of entries.
    if moment is None:
        own = utils.safe_get_local_fp32_param(parameter).clone()
    else:
        own = utils.safe_get_local_optimizer_state(parameter, moment).clone()
    place = torch.distributed.get_rank(parameter.ds_process_group) * own.numel()
    part = value.flatten()[place : place + own.numel()]
    own[: part.numel()] = part
    if moment is None:
        utils.safe_set_local_fp32_param(parameter, own)
    else:
        utils.safe_set_local_optimizer_state(parameter, own, moment)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
