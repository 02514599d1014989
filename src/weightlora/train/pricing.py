"""What steps of a planned run cost, measured before it begins."""

import tempfile

from torch.optim import SGD
from transformers import set_seed

from .. import WeightLora, WeightLoraConfig
from ..costs import Costs
from ..trainers.probing import probe_in_trainer
from .fitting import load_prepared, make_trainer
from .plan import Job


def has_prices(job: Job) -> bool:
    """Whether the run chooses within a budget of step time or memory."""
    return job.selection is not None and job.selection.resource is not None


def price(job: Job) -> tuple[Costs, list[str]]:
    """Load the model and measure what its steps cost. Nothing is trained and nothing is written.

    Args:
        job: From `prepare`; it `has_prices`.

    Returns:
        The costs, and the names of the adapters in the same order.

    Raises:
        WeightLoraError: The budget has no room, or the model or the data do not fit the method.
    """
    arguments = job.recipe.training
    set_seed(arguments.seed)
    prepared = load_prepared(job)
    assert prepared.selection is not None  # it has prices
    config = prepared.selection.config
    with tempfile.TemporaryDirectory() as directory:  # a Trainer makes one
        arguments.output_dir = directory
        trainer = make_trainer(job, prepared.model, ())
    trainable = [parameter for parameter in prepared.model.parameters() if parameter.requires_grad]
    budget = {name: getattr(config, name) for name in ("keep", "keep_step_time", "keep_memory", "adapter_name")}
    selector = WeightLora(
        prepared.model, SGD(trainable), WeightLoraConfig(**budget, selection="random", select_steps=1)
    )
    probe_in_trainer(selector, trainer, trainer.get_train_dataloader())
    assert selector.limit is not None and selector.limit.costs is not None
    return selector.limit.costs, selector.names
