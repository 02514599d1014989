import subprocess
from types import SimpleNamespace

import pytest
import torch

from weightlora import __version__
from weightlora.train import environment


def test_versions_are_those_that_are_installed():
    found = environment.versions()
    assert found["weightlora"] == __version__
    assert found["torch"].partition("+")[0] == torch.__version__.partition("+")[0], (
        "PyPI's has no +cu124 in its metadata"
    )
    assert found.keys() == {"weightlora", "torch", "peft", "transformers", "accelerate", "datasets"}


def test_the_machine_is_described_by_values_for_json():
    found = environment.machine(torch.device("cpu"))
    assert found["device"] == "cpu" and found["threads"] == torch.get_num_threads()
    assert all(isinstance(value, str | int) for value in found.values())


def test_the_commit_has_twelve_digits(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def git(command: list[str], **settings: object) -> SimpleNamespace:
        asked.append(command)
        return SimpleNamespace(stdout="0123456789ab\n")

    monkeypatch.setattr(subprocess, "run", git)
    assert environment.commit() == "0123456789ab" and "--short=12" in asked[0]


@pytest.mark.parametrize("git", [lambda *args, **settings: SimpleNamespace(stdout=""), None])
def test_without_a_checkout_or_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch, git):
    def missing(*args: object, **settings: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", git or missing)
    assert environment.commit() is None


def test_peak_memory_is_in_bytes(monkeypatch: pytest.MonkeyPatch):
    usage = SimpleNamespace(ru_maxrss=3_000_000)
    monkeypatch.setattr("resource.getrusage", lambda who: usage)
    for system, factor in (("Linux", 1024), ("Darwin", 1)):  # macOS counts bytes, Linux kibibytes
        monkeypatch.setattr("platform.system", lambda system=system: system)
        assert environment.peak_process_bytes() == factor * 3_000_000
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert environment.peak_gpu_bytes() is None
