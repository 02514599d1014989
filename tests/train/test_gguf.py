"""Models in GGUF files: which Transformers reads them, and how."""

from types import SimpleNamespace

import pytest
import torch
from models import needs_gguf
from recipes import arguments

from weightlora.errors import ConfigError
from weightlora.train import gguf, loading, parse
from weightlora.train.settings import ModelArguments


def test_a_gguf_model_needs_a_transformers_that_reads_it(monkeypatch: pytest.MonkeyPatch):
    def use(version: str) -> None:
        monkeypatch.setattr("transformers.__version__", version)
        monkeypatch.setattr("importlib.metadata.version", lambda name: version)

    use("5.18.0")
    gguf.check_gguf()
    use("5.17.1")
    with pytest.raises(ConfigError, match=r"^a GGUF model needs Transformers 5\.18 or newer, and this is 5\.17\.1, "):
        loading.load_config(ModelArguments(model=".", gguf_file="model.gguf"))


def test_the_weights_are_unpacked_also_where_a_kernel_could_compute_with_them(world, monkeypatch):
    needs_gguf()
    asked = {}

    def from_pretrained(name, **settings):
        asked.update(settings)
        return torch.nn.Linear(1, 1), {"missing_keys": []}

    monkeypatch.setattr("transformers.AutoModelForSequenceClassification.from_pretrained", from_pretrained)
    recipe = parse(arguments(world, "cola", "deberta", world / "out", "--gguf_file", "model.gguf", "--method", "full"))
    loading.load_model(SimpleNamespace(auto_class="AutoModelForSequenceClassification"), None, recipe)
    assert asked["quantization_config"].dequantize and asked["gguf_file"] == "model.gguf"
