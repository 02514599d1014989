"""The package's probe, which chooses before the first step by the gradients of fresh adapters on a few batches."""

from dataclasses import replace

from peft import LoraConfig

from weightlora import WeightLoraConfig, select
from weightlora.rules import GradientProbe
from weightlora.train.methods import CONFIG_OPTIONS, Method, Prepared, Setting, weightlora


def probe_scores(setting: Setting) -> dict[str, float]:
    """The scores of the package's probe, by module; the model has no adapters, before and after."""
    lora = LoraConfig(r=setting.rank, lora_alpha=setting.alpha, **setting.target)
    config = WeightLoraConfig(selection=GradientProbe.name, keep=1, seed=setting.seed)
    scores = select(setting.model, list(setting.batches()), config, lora=lora, progress=False).scores
    return {name: float(score or 0) for name, score in scores.items()}


def probe(setting: Setting) -> Prepared:
    """The package's probe chooses, and what it chose is trained."""
    options = {"selection": GradientProbe.name, "keep": None, "keep_parameters": 0.25}
    return weightlora(replace(setting, select_steps=None, options=options | setting.options))


METHODS = {"probe": Method(probe, CONFIG_OPTIONS)}
