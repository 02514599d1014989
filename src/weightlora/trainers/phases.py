"""Two phases in one `train()`, for engines that parameters cannot leave in the middle of a run (FSDP1, DeepSpeed).

The first phase ends with a choice that the engine cannot follow: the adapters that lost are switched off. A checkpoint
of the Trainer carries step, data position, learning rate and the survivors' moments over. The model is brought back to
plain modules, the losers leave it, and the Trainer resumes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..adapters.outcome import describe_
from ..adapters.surgery import disconnect_
from ..engines import DeepSpeed, Fsdp1, Phased
from ..errors import ConfigError
from ..rules import RULES
from ..selector import WeightLora


def train_in_phases(
    trainer: Any, callback: Any, engine: Phased, train: Callable[..., Any], checkpoint: str | None
) -> Any:
    """Trainer's `train()`, and once more after every round of the selection.

    Args:
        trainer: Its model is in no engine yet, and has the structure of the checkpoint.
        callback: The `WeightLoraCallback`.
        engine: From `phased_engine`.
        train: Trainer's own; takes the checkpoint to resume from, or None.
        checkpoint: Where the run is resumed from, or None.

    Returns:
        What the last `train()` did.
    """
    callback.engine = engine
    engine.begin_(trainer.model, trainer.accelerator)
    if checkpoint:
        engine.load_(trainer.model, checkpoint)
    elif callback.config.select_steps == 0 and not RULES[callback.config.selection].probes:
        trainable = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
        callback.go_on(WeightLora(trainer.model, torch.optim.SGD(trainable), callback.config).state_dict())
    with engine.serving(trainer.accelerator):
        output = train(checkpoint)
        while engine.waiting:
            release_(trainer, callback)
            if callback.paused:
                callback.go_on(callback.selector.state_dict())
                output = train(str(checkpoint_dir(trainer.args.output_dir, trainer.state)))
            else:
                engine.hold_again_(trainer)
    return output


def checkpoint_dir(run_dir: Any, state: Any) -> Path:
    """Where Trainer writes the checkpoint of the present step."""
    return Path(run_dir or "") / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"


def phased_engine(trainer: Any) -> Phased | None:
    """What serves the Trainer's engine, if that will lay parameters out once and for all.

    Raises:
        ConfigError: If the engine cannot be served, or if its checkpoints could not carry a run over.
    """
    state = trainer.accelerator.state
    zero, fsdp = getattr(state, "deepspeed_plugin", None), getattr(state, "fsdp_plugin", None)
    if zero is not None:
        engine: Phased = DeepSpeed()
        _check_zero(zero)
    elif fsdp is not None and fsdp.fsdp_version == 1:
        engine = Fsdp1()
        if "FULL_STATE_DICT" not in str(fsdp.state_dict_type):
            raise ConfigError(
                f"state_dict_type={fsdp.state_dict_type} of FSDP (version 1) saves no adapter: set 'FULL_STATE_DICT'."
            )
    else:
        return None
    if trainer.model_init is not None:
        raise ConfigError(
            f"model_init does not go with {engine.title}: the Trainer would build a model with all adapters again "
            "after the selection, so pass the model itself."
        )
    for setting in ("save_only_model", "load_best_model_at_end", "ignore_data_skip"):
        if getattr(trainer.args, setting):
            raise ConfigError(
                f"{setting}=True does not go with {engine.title}, where training goes on from a checkpoint after "
                "the selection: set it to False."
            )
    return engine


def _check_zero(plugin: Any) -> None:
    config = plugin.hf_ds_config
    if plugin.zero_stage not in (1, 2, 3):
        raise ConfigError(
            f"safe_get_full_fp32_param of DeepSpeed gives nothing under ZeRO stage {plugin.zero_stage}: set "
            "zero_optimization.stage to 1, 2 or 3, or train with DDP."
        )
    if config.is_true("fp16.enabled"):
        raise ConfigError(
            "fp16 of DeepSpeed scales the loss and skips steps inside its engine, without reporting it: set bf16."
        )
    for what in ("offload_optimizer", "offload_param"):
        if config.get_value(f"zero_optimization.{what}.device") == "nvme":
            raise ConfigError(f"{what} to nvme was not tested with a selection: set its device to cpu.")
    key = "zero_optimization.stage3_gather_16bit_weights_on_model_save"
    if plugin.zero_stage == 3 and not config.is_true(key):
        raise ConfigError(f"ZeRO stage 3 saves no adapter without {key}: set it to true.")


def release_(trainer: Any, callback: Any) -> None:
    """Take the Trainer's model out of its engine, and the waiting adapters out of the model.

    The next `train()` wraps the model and builds the optimizer and the scheduler anew.
    """
    trainer.accelerator.wait_for_everyone()  # the checkpoint is whole
    model, selector = callback.engine.to_plain_(trainer.model), callback.selector
    disconnect_(model, callback.engine.waiting)
    describe_(model, selector.adapter_name)
    callback.engine.waiting = []
    selector.model = trainer.model = trainer.model_wrapped = trainer.callback_handler.model = model
    trainer.optimizer = trainer.lr_scheduler = trainer.deepspeed = None
    trainer.callback_handler.optimizer = trainer.callback_handler.lr_scheduler = None
    trainer.accelerator.free_memory()
