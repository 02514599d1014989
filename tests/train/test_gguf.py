"""Models in GGUF files: which Transformers reads them."""

import pytest

from weightlora.errors import ConfigError
from weightlora.train import gguf, loading
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
