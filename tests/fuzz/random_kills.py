"""Trainings that are killed with SIGKILL at random moments, and go on.

    python tests/fuzz/random_kills.py [COUNT] [SEED]

Each training is a forked process of its own, in four settings. What it ends in is compared, bit for bit, with a
training that was not interrupted: weights, the optimizer's state, the selection's, and the run directory. Prints one
line of JSON for each setting, and exits with 1 if anything differs.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from models import adamw, batch, lora_bert
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from runs import ROUNDS, build
from safetensors.torch import load_file

from weightlora import WeightLora, WeightLoraConfig, restore
from weightlora.directories import replacing_directory
from weightlora.errors import StateError
from weightlora.files import write_json
from weightlora.run import HISTORY, SELECTION
from weightlora.state import write_state
from weightlora.trainers.resuming import last_checkpoint

STEPS = 8
GATES = {"keep": 3, "select_steps": 6, "selection": "stoiht", "omega_lr": 2.0, "warmup_steps": 2, "expand": "random"}
PROBE = {"keep": 3, "selection": "gradient", "probe_batches": 2}
LIMIT = 60  # seconds of one training


def in_a_trainer(settings: dict[str, Any]) -> Callable[[Path], Any]:
    def run(directory: Path) -> Any:
        trainer = build(directory, settings, max_steps=STEPS)
        try:
            last = str(last_checkpoint(directory)[0])
        except StateError:  # it was killed before it had written one
            last = None
        trainer.train(resume_from_checkpoint=last)
        return trainer.model, trainer.optimizer.optimizer, trainer.weightlora.selector

    return run


def in_a_loop(directory: Path) -> Any:
    """Your own loop, which saves each step in a directory that appears whole or not at all."""
    saved = sorted(directory.glob("step-*"))
    state = None
    model = lora_bert(dropout=0.1).train()
    if saved:
        state = restore(model, saved[-1])
    optimizer = adamw(model)
    selector = WeightLora(model, optimizer, WeightLoraConfig(**ROUNDS), state, run_dir=directory)
    start = 0
    if saved:
        start = int(saved[-1].name.rpartition("-")[2])
        set_peft_model_state_dict(model, load_file(saved[-1] / "adapter_model.safetensors"))
        optimizer.load_state_dict(torch.load(saved[-1] / "optimizer.pt", weights_only=True))
    for step in range(start, STEPS):
        torch.manual_seed(step)  # dropout
        model(**batch(step)).loss.backward()
        optimizer.step()
        selector.step()
        optimizer.zero_grad()
        with replacing_directory(directory / f"step-{step + 1}") as staging:
            write_state(selector.state_dict(), staging)
            model.save_pretrained(staging)
            torch.save(optimizer.state_dict(), staging / "optimizer.pt")
    return model, optimizer, selector


SETTINGS: dict[str, Callable[[Path], Any]] = {
    "Trainer, credit in rounds, growing": in_a_trainer(ROUNDS),
    "Trainer, gates and WeightLoRA+": in_a_trainer(GATES),
    "Trainer, chosen by gradient": in_a_trainer(PROBE),
    "your own loop": in_a_loop,
}


def digests(model: Any, optimizer: Any, selector: Any, directory: Path) -> dict[str, Any]:
    """What a training ended in: each tensor as its SHA-256."""

    def digest(tensor: torch.Tensor) -> str:
        return hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()

    found = {f"adapter: {name}": digest(value) for name, value in get_peft_model_state_dict(model).items()}
    for number, moments in optimizer.state_dict()["state"].items():
        found |= {f"optimizer: {number}, {name}": digest(value) for name, value in moments.items()}
    found["groups"] = [{**group, "lr": group["lr"].hex()} for group in optimizer.state_dict()["param_groups"]]
    found["selection"] = selector.state_dict()
    found |= {name: (directory / name).read_text() for name in (SELECTION, HISTORY)}
    return json.loads(json.dumps(found))


def train(run: Callable[[Path], Any], directory: Path, end: Path) -> None:
    """In a forked process: train, or go on, to the end."""
    code = 1
    try:
        warnings.simplefilter("ignore")
        write_json(end, digests(*run(directory), directory))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def start(run: Callable[[Path], Any], directory: Path, end: Path) -> int:
    child = os.fork()
    if not child:
        train(run, directory, end)
    return child


def finish(child: int) -> int:
    """The exit code of a process, or the negative number of the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed(run: Callable[[Path], Any], expected: Any, seconds: float, kills: int, draw: random.Random) -> list[str]:
    """What differs after a training that was killed so many times, at moments spread evenly over its duration."""
    with tempfile.TemporaryDirectory() as name:
        directory, end = Path(name) / "run", Path(name) / "end.json"
        directory.mkdir()
        while kills:
            child = start(run, directory, end)
            time.sleep(draw.uniform(0, seconds))
            os.kill(child, signal.SIGKILL)
            code = finish(child)
            kills -= code == -signal.SIGKILL
            if code == 0:  # it had ended before
                shutil.rmtree(directory)
                directory.mkdir()
                end.unlink()
            elif code > 0:
                return [f"exit code {code}"]
        code = finish(start(run, directory, end))
        if code:
            return [f"exit code {code}"]
        found = json.loads(end.read_text())
    return sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))


def main(count: int, seed: int) -> int:
    torch.set_num_threads(1)
    draw, failed, each = random.Random(seed), 0, -(-count // len(SETTINGS))
    for setting, run in SETTINGS.items():
        with tempfile.TemporaryDirectory() as name:
            began = time.monotonic()
            assert finish(start(run, Path(name), Path(name) / "end.json")) == 0, setting
            seconds, expected = time.monotonic() - began, json.loads((Path(name) / "end.json").read_text())
        kills, trials, differ = 0, 0, []
        while kills < each:
            more = min(draw.choice([1, 1, 2]), each - kills)  # the second one is while it resumes
            differ += killed(run, expected, seconds, more, draw)
            kills, trials = kills + more, trials + 1
        failed += bool(differ)
        print(json.dumps({"setting": setting, "kills": kills, "trainings": trials, "differ": differ}), flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    sys.exit(main(*given, *(100, 0)[len(given) :]))
