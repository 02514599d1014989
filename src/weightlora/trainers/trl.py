"""TRL's SFTTrainer that selects adapters, and resumes in the middle of it. For TRL's others, mix the mixin in."""

from typing import ClassVar

from trl import SFTTrainer

from .trainer import WeightLoraTrainerMixin


class WeightLoraSFTTrainer(WeightLoraTrainerMixin, SFTTrainer):
    """`trl.SFTTrainer` with `weightlora=WeightLoraConfig(...)`.

    Example:
        ```python
        trainer = WeightLoraSFTTrainer(
            "HuggingFaceTB/SmolLM2-135M",
            SFTConfig("out", max_steps=500),
            train_dataset=data,
            peft_config=LoraConfig(target_modules="all-linear"),
            weightlora=WeightLoraConfig(keep_parameters=0.25),
        )
        trainer.train()
        ```
    """

    _tag_names: ClassVar = [*SFTTrainer._tag_names, "weightlora"]  # type: ignore[misc]
