"""Trainings that are killed with SIGKILL while they write a checkpoint: `python tests/kills.py DIRECTORY`.

Each case is a forked process of its own that dies in the middle of what its name says, and leaves DIRECTORY/case.
"""

import gc
import os
import shutil
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import peft.peft_model
import torch
import transformers.trainer
import transformers.trainer_utils
from runs import ROUNDS, build
from transformers import Trainer, TrainerState

import weightlora.trainers.callback
import weightlora.trainers.resuming
from weightlora.manifest import MANIFEST
from weightlora.state import STATE_FILE

AT = 4  # the checkpoint that is being written


def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def cut_short(write):
    """Write a file, cut it in half, and die, if it is one of checkpoint AT; `write` takes the path last."""

    def half(*args, **kwargs):
        write(*args, **kwargs)
        path = next(Path(a) for a in reversed(args) if isinstance(a, str | Path))
        if path.parent.name == f"checkpoint-{AT}":
            os.truncate(path, path.stat().st_size // 2)
            die()

    return half


def at_checkpoint(function, after=False):
    """Die in the place of the call that has to do with checkpoint AT, or after it."""

    def dying(*args, **kwargs):
        paths = [Path(a) for a in (*args, *kwargs.values()) if isinstance(a, str | Path)]
        here = any(path.name == f"checkpoint-{AT}" or (path / f"checkpoint-{AT}").is_dir() for path in paths)
        if here and not after:
            die()
        result = function(*args, **kwargs)
        if here:
            die()
        return result

    return dying


def half_of(file):
    """Write half of this file of checkpoint AT to the one that is to become it, and die."""

    def write(path, text, **kwargs):
        if file in path.name and path.parent.name == f"checkpoint-{AT}":
            write_text(path, text[: len(text) // 2], **kwargs)
            die()
        return write_text(path, text, **kwargs)

    return write


def half_of_the_older(path, **kwargs):
    """Deletes the first half of the files of the last checkpoint but one, and dies."""
    if path.endswith(f"checkpoint-{AT - 1}"):
        files = sorted(Path(path).iterdir())
        for file in files[: len(files) // 2]:
            file.unlink()
        die()
    remove(path, **kwargs)


remove, write_text = shutil.rmtree, Path.write_text


def patch(case: str) -> dict:
    """Make this process one that dies; returns further arguments of `build`."""
    trainer = transformers.trainer.Trainer
    if case == "before our state, which a plain Trainer's callback writes last":
        weightlora.trainers.callback.write_state = at_checkpoint(weightlora.trainers.callback.write_state)
        return {"kind": Trainer}
    elif case == "in our state, which comes first":
        Path.write_text = half_of(STATE_FILE)
    elif case == "in the weights":
        peft.peft_model.safe_save_file = cut_short(peft.peft_model.safe_save_file)
    elif case == "between weights and optimizer":
        trainer._save_optimizer_and_scheduler = at_checkpoint(trainer._save_optimizer_and_scheduler)
    elif case == "in the optimizer":
        torch.save = cut_short(torch.save)
        trainer._save = lambda self, folder, **_: self.model.save_pretrained(folder)  # writes no training_args.bin
    elif case == "in the Trainer's state":
        TrainerState.save_to_json = cut_short(TrainerState.save_to_json)
    elif case == "between the Trainer's state and the manifest":
        weightlora.trainers.resuming.write_manifest = at_checkpoint(weightlora.trainers.resuming.write_manifest)
        return {"save_total_limit": 1}
    elif case == "in the manifest, which comes last":
        Path.write_text = half_of(MANIFEST)
        return {"save_total_limit": 1}
    elif case == "before the manifest of a plain Trainer's callback":
        weightlora.trainers.callback.write_manifest = at_checkpoint(weightlora.trainers.callback.write_manifest)
        return {"kind": Trainer}
    elif case == "after older checkpoints were deleted":
        transformers.trainer.rotate_checkpoints = at_checkpoint(transformers.trainer.rotate_checkpoints, after=True)
        return {"save_total_limit": 1}
    elif case == "while older checkpoints are deleted":
        transformers.trainer_utils.shutil.rmtree = half_of_the_older
        return {"save_total_limit": 1}
    return {}


CASES = [
    "before our state, which a plain Trainer's callback writes last",
    "in our state, which comes first",
    "in the weights",
    "between weights and optimizer",
    "in the optimizer",
    "in the Trainer's state",
    "between the Trainer's state and the manifest",
    "in the manifest, which comes last",
    "before the manifest of a plain Trainer's callback",
    "after older checkpoints were deleted",
    "while older checkpoints are deleted",
]

if __name__ == "__main__":
    torch.set_num_threads(1)
    short = {"selection": "random", "keep": 3, "select_steps": 1}
    build(Path(sys.argv[1]) / "none", short, max_steps=2).train()  # imports what each of the others would import
    gc.freeze()  # the garbage collector would copy what a fork shares with this process
    for case in CASES:
        child = os.fork()
        if not child:
            build(Path(sys.argv[1]) / case, ROUNDS, **patch(case)).train()
            os._exit(1)  # it was to die
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"{case}: {status}"
