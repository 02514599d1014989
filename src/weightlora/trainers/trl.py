"""TRL's SFTTrainer that selects adapters, and resumes in the middle of it. For TRL's others, mix the mixin in."""

from typing import ClassVar

from trl import SFTTrainer

from .trainer import WeightLoraTrainerMixin


class WeightLoraSFTTrainer(WeightLoraTrainerMixin, SFTTrainer):
    """`trl.SFTTrainer` with `weightlora=WeightLoraConfig(...)`."""

    _tag_names: ClassVar = [*SFTTrainer._tag_names, "weightlora"]  # type: ignore[misc]
