"""The examples run, load without us, and are three lines away from plain LoRA."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from models import WORDS, save_causal, save_classifier, sentence
from peft import AutoPeftModelForCausalLM, AutoPeftModelForSequenceClassification
from processes import TORCHRUN, ForkServer

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
CAUSAL = {"sft", "dpo"}
MARK, WAS = "  # +", "  # was: "
STEPS = 10
OF_TRL = {"sft", "dpo", "reward"}
# What the examples import, and takes long.
IMPORTS = ["datasets", "weightlora.trainers.trainer"]
if find_spec("trl"):
    IMPORTS += ["trl.trainer.dpo_trainer", "trl.trainer.reward_trainer", "weightlora.trainers.trl"]
IMPORTS += ["lightning.pytorch"] if find_spec("lightning") else []


def row(index: int) -> dict:
    return {"text": sentence(index), "label": index % 2}


def preference(index: int) -> dict:
    return {"prompt": row(index)["text"], "chosen": "good film", "rejected": "bad plot"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    directory = tmp_path_factory.mktemp("examples")
    save_classifier(directory / "classifier", WORDS)
    save_causal(directory / "causal", WORDS)
    for name, make in (("rows", row), ("preferences", preference)):
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(make(i)) + "\n" for i in range(60)))
    return directory


@pytest.fixture(scope="module")
def fork_server(place):
    cpu = {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    started = ForkServer(*IMPORTS, HF_HUB_OFFLINE="1", HF_DATASETS_CACHE=str(place / "cache"), **cpu)
    yield started
    started.close()


def files(name: str, place: Path) -> tuple[Path, Path]:
    data = {"sft": "texts", "dpo": "preferences", "reward": "pairs"}.get(name, "rows")
    if data in ("texts", "pairs"):
        keys = {"texts": ("text",), "pairs": ("chosen", "rejected")}[data]
        source = row if data == "texts" else preference
        lines = (json.dumps({key: source(i)[key] for key in keys}) + "\n" for i in range(60))
        (place / f"{data}.jsonl").write_text("".join(lines))
    return place / ("causal" if name in {*CAUSAL, "reward"} else "classifier"), place / f"{data}.jsonl"


def changed(line: str) -> bool:
    return line.endswith(MARK) or WAS in line


def without(lines: list[str]) -> str:
    """The script before WeightLoRA: without the lines that were added, and with those that were replaced."""
    return "\n".join(line.partition(WAS)[2] or line for line in lines if not line.endswith(MARK))


def run(fork_server: ForkServer, script: Path, place: Path, output: Path, name: str) -> None:
    if name.startswith("lightning"):
        pytest.importorskip("lightning.pytorch", reason="the extra `lightning` is not installed")
    if name in OF_TRL:
        pytest.importorskip("trl", reason="trl is not installed")
    model, data = files(name, place)
    done = fork_server.run(str(script), str(model), str(data), str(output), str(STEPS))
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_its_adapter_loads_without_us(example, fork_server, place, tmp_path):
    run(fork_server, example, place, tmp_path / "out", example.stem)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert 3 <= len(config["target_modules"]) <= 4, "a quarter of 13 or 14"
    loader = AutoPeftModelForCausalLM if example.stem in CAUSAL else AutoPeftModelForSequenceClassification
    settings = {} if example.stem in CAUSAL else {"num_labels": 1 if example.stem == "reward" else 2}
    assert loader.from_pretrained(tmp_path / "out", **settings)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_three_lines_away_from_plain_lora(example):
    lines = example.read_text().splitlines()
    assert len(lines) < 60
    assert 1 <= sum(map(changed, lines)) <= 3
    plain = without(lines)
    compile(plain, str(example), "exec")
    assert "WeightLora" not in plain.split('"""')[2]


@pytest.mark.slow
def test_without_the_three_lines_it_is_a_run_of_plain_lora(fork_server, place, tmp_path):
    lines = (EXAMPLES[0].parent / "trainer.py").read_text().splitlines()
    plain = tmp_path / "plain.py"
    plain.write_text(without(lines))
    run(fork_server, plain, place, tmp_path / "out", "trainer")
    assert len(json.loads((tmp_path / "out" / "adapter_config.json").read_text())["target_modules"]) > 4


@pytest.mark.slow
def test_on_two_processes_the_loop_of_accelerate_learns_to_its_last_step(fork_server, place, tmp_path):
    """A schedule that `prepare` got moves on once for each process."""
    text = (EXAMPLES[0].parent / "accelerate_loop.py").read_text()
    said = 'print(f"rate {schedule.get_last_lr()[0]} {model.training}\\n", end="")'  # in one write
    script = tmp_path / "loop.py"
    script.write_text(text.replace("            schedule.step()", f"            {said}\n            schedule.step()"))
    model, data = files("accelerate_loop", place)
    arguments = [str(script), str(model), str(data), str(tmp_path / "out"), str(STEPS)]
    done = fork_server.run("-m", *TORCHRUN, "--nproc_per_node=2", *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    rates = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("rate")]
    assert len(rates) >= 2 * STEPS and rates[-1] > 0 and "False" not in done.stdout
