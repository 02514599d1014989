"""Runs scripts in processes of their own, and functions of `workers.py` on several."""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
STEPS = 8
RULES = {
    "credit": {"keep": 3, "select_steps": 4},
    "credit of DoRA": {"keep": 3, "select_steps": 4},
    "gates": {"keep": 3, "select_steps": 4, "selection": "stoiht", "omega_lr": 1.0, "warmup_steps": 2},
    "chance": {"keep": 3, "select_steps": 4, "selection": "random", "seed": 3},
    "gradient": {"keep": 3, "selection": "gradient", "probe_batches": 2},
    "credit in rounds, growing": {"keep": 3, "select_steps": 4, "rounds": 2, "expand": "random"},
}
TORCHRUN = ["torch.distributed.run", "--standalone"]
# What `accelerate config` writes into its file.
ACCELERATE = ["accelerate.commands.launch", "--use_fsdp", "--fsdp_version=1", "--fsdp_use_orig_params=true"]
ACCELERATE += ["--fsdp_state_dict_type=FULL_STATE_DICT", "--fsdp_auto_wrap_policy=TRANSFORMER_BASED_WRAP"]
ACCELERATE += ["--fsdp_sync_module_states=false", "--fsdp_cpu_ram_efficient_loading=false", "--main_process_port=0"]
ACCELERATE += ["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]

# What `workers.py` and the launchers import, and nothing of ours.
IMPORTS = ["models", "transformers.trainer", "torch.distributed.fsdp", TORCHRUN[0]]
LIMIT = 300  # seconds of one command


class ForkServer:
    """Runs what `python` would run, in forks of a process that has made the imports: see `fork_server.py`.

    A command gets the environment of its call, but for what a library reads once, when it is imported.
    """

    def __init__(self, *imports: str, **environment: str) -> None:
        self.environment = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"} | environment
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "fork_server.py"), *imports],
            env=os.environ | self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str, input: str = "", limit: float = LIMIT) -> subprocess.CompletedProcess[str]:
        """Run a command, which is given without the word `python`, for so many seconds at most."""
        with tempfile.TemporaryDirectory() as directory:
            streams = [Path(directory) / name for name in ("in", "out", "err")]
            for stream, text in zip(streams, (input, "", ""), strict=True):
                stream.write_text(text)
            asked = {"command": command, "streams": [*map(str, streams)], "limit": limit}
            asked |= {"environment": os.environ | self.environment, "directory": os.getcwd()}
            print(json.dumps(asked), file=self.process.stdin, flush=True)
            code = json.loads(self.process.stdout.readline())
            _, output, error = (stream.read_text() for stream in streams)
        if code is None:
            raise subprocess.TimeoutExpired(command, limit, output, error)
        return subprocess.CompletedProcess(command, code, output, error)

    def close(self) -> None:
        self.process.communicate()


@cache
def fork_server() -> ForkServer:
    """The one of all tests in this process, where something asks for it."""
    started = ForkServer(*IMPORTS)
    atexit.register(started.close)
    return started


def launch(script: str, processes: int, *arguments: str, check: bool = True, by=TORCHRUN):
    """Run a function of `workers.py` under torchrun, or accelerate."""
    number = f"--nproc_per_node={processes}" if by is TORCHRUN else f"--num_processes={processes}"
    done = fork_server().run("-m", *by, number, str(HERE / "workers.py"), script, *arguments)
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done


def outcomes(directory: Path, processes: int) -> list[dict]:
    return [json.loads((directory / f"rank-{rank}.json").read_text()) for rank in range(processes)]
