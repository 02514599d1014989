"""Gives the picture of the choice to TensorBoard, W&B and trackio, where a Trainer reports to them."""

from collections.abc import Callable, Iterable
from typing import Any

from transformers.utils import logging

from ..drawing.figures import pixels
from ..drawing.picture import selection_figure
from ..errors import MissingPackageError
from ..run import describe_selection

PICTURE = "weightlora/selection"
"""Its name there."""

logger = logging.get_logger(__name__)


def report_choice(selector: Any, callbacks: Iterable[Any], step: int) -> None:
    """Log the picture of a choice, as an image array, through each integration that is on.

    Without matplotlib a warning says so, and the training goes on.

    Args:
        selector: A `WeightLora` after its decision.
        callbacks: Those of the Trainer.
        step: Steps of the training that were made.
    """
    receivers = [receiver for callback in callbacks if (receiver := _receiver(callback, step)) is not None]
    if not receivers:
        return
    try:
        image = pixels(selection_figure(describe_selection(selector)))
    except MissingPackageError as error:
        logger.warning(f"no picture of the choice is logged, because {error}")
        return
    for receive in receivers:
        receive(image)


def _receiver(callback: Any, step: int) -> Callable[[Any], None] | None:
    """What takes an image of shape `(height, width, 3)` for one callback of the Trainer; None if it takes none."""
    from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback

    if isinstance(callback, TensorBoardCallback):
        writer = callback.tb_writer
        return None if writer is None else lambda image: writer.add_image(PICTURE, image, step, dataformats="HWC")
    if isinstance(callback, WandbCallback):
        import wandb

        return lambda image: wandb.log({PICTURE: wandb.Image(image), "train/global_step": step})
    if isinstance(callback, TrackioCallback):
        import trackio

        return lambda image: trackio.log({PICTURE: trackio.Image(image), "train/global_step": step})
    return None
