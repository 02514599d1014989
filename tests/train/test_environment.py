import subprocess
from pathlib import Path
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


def test_the_commit_is_given_only_where_git_tracks_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def git(*arguments: str) -> str:
        named = ("-c", "user.name=Me", "-c", "user.email=me@example.com")
        return subprocess.check_output(["git", "-C", str(tmp_path), *named, *arguments], text=True)

    for place in ("src", ".venv"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "environment.py").touch()
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "src" / "environment.py"))
    assert environment.commit() is None, "no checkout"
    git("init", "-q")
    assert environment.commit() is None, "no commit"
    git("add", "src")
    git("commit", "-q", "-m", "First")
    found = environment.commit()
    assert found is not None and len(found) == 12 and git("rev-parse", "HEAD").startswith(found)
    monkeypatch.setattr(environment, "__file__", str(tmp_path / ".venv" / "environment.py"))
    assert environment.commit() is None, "the checkout is of another project"


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch):
    def missing(*args: object, **settings: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", missing)
    assert environment.commit() is None


def test_peak_memory_is_in_bytes(monkeypatch: pytest.MonkeyPatch):
    usage = SimpleNamespace(ru_maxrss=3_000_000)
    monkeypatch.setattr("resource.getrusage", lambda who: usage)
    for system, factor in (("Linux", 1024), ("Darwin", 1)):  # macOS counts bytes, Linux kibibytes
        monkeypatch.setattr("platform.system", lambda system=system: system)
        assert environment.peak_process_bytes() == factor * 3_000_000
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert environment.peak_gpu_bytes() is None
