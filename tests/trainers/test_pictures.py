"""The picture of the choice in TensorBoard, W&B and trackio.

TensorBoard is the real one where it is installed. The other two are stand-ins: modules with the few functions of their
public API that are used (`wandb.Image`, `wandb.log`, `trackio.Image`, `trackio.log`), which note the calls.
"""

import logging
import sys
from types import ModuleType, SimpleNamespace

import pytest
from runs import build
from selections import selected
from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback

from weightlora.trainers.pictures import PICTURE, report_choice


def bare(kind, **attributes):
    """A callback whose constructor, which needs the package, does not run."""
    callback = kind.__new__(kind)
    vars(callback).update(attributes)
    return callback


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str) -> list[dict]:
    logged: list[dict] = []
    module = ModuleType(name)
    vars(module).update(Image=lambda array: ("image", array.shape, array.dtype.name), log=logged.append)
    monkeypatch.setitem(sys.modules, name, module)
    return logged


@pytest.mark.parametrize(("name", "kind"), [("wandb", WandbCallback), ("trackio", TrackioCallback)])
def test_through_the_public_functions(monkeypatch: pytest.MonkeyPatch, name: str, kind: type):
    logged = stand_in(monkeypatch, name)
    report_choice(selected(), [object(), bare(kind)], 7)
    [entry] = logged
    (what, shape, dtype), step = entry[PICTURE], entry["train/global_step"]
    assert (what, dtype, step, shape[2]) == ("image", "uint8", 7, 3) and min(shape[:2]) > 300


def test_a_writer_that_is_closed_gets_nothing():
    images: list[tuple] = []
    writer = SimpleNamespace(add_image=lambda *arguments, dataformats: images.append((*arguments, dataformats)))
    report_choice(selected(), [bare(TensorBoardCallback, tb_writer=None)], 7)
    assert images == []
    report_choice(selected(), [bare(TensorBoardCallback, tb_writer=writer)], 7)
    [(name, image, step, layout)] = images
    assert (name, step, layout, image.shape[2]) == (PICTURE, 7, "HWC", 3)


def test_without_matplotlib_the_training_goes_on(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    logged = stand_in(monkeypatch, "wandb")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    logging.getLogger("transformers").addHandler(caplog.handler)
    with caplog.at_level("WARNING"):
        report_choice(selected(), [bare(WandbCallback)], 7)
    assert logged == [] and "no picture of the choice is logged, because matplotlib" in caplog.text


@pytest.mark.parametrize("settings", [{"keep": 3, "select_steps": 4}, {"keep": 3, "selection": "gradient"}])
def test_a_trainer_gives_it_once(tmp_path, monkeypatch: pytest.MonkeyPatch, settings: dict):
    given: list[int] = []
    monkeypatch.setattr("weightlora.trainers.callback.report_choice", lambda _, __, step: given.append(step))
    build(tmp_path, settings).train()
    assert given == [settings.get("select_steps", 0)]
    build(tmp_path, settings).train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert len(given) == 1, "a run that resumes after its choice has given it before"


def test_tensorboard_has_the_picture(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (pip install tensorboard)")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    build(tmp_path, {"keep": 3, "select_steps": 4}, report_to=["tensorboard"]).train()
    [file] = tmp_path.rglob("events.out.tfevents*")
    events = EventAccumulator(str(file))
    events.Reload()
    [image] = events.Images(PICTURE)
    assert image.step == 4 and image.encoded_image_string.startswith(b"\x89PNG") and image.width > 300
