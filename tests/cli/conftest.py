import datasets
import pytest
from recipes import save_model, write_rows


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """deberta/ and films.jsonl."""
    directory = tmp_path_factory.mktemp("films")
    save_model("deberta", directory / "deberta")
    words = ["good", "bad", "fine", "awful", "film", "plot", "actor", "scene"]
    rows = [{"said": f"{words[i % 8]} {words[i // 8]} film", "gold": i % 2} for i in range(64)]
    write_rows(directory / "films.jsonl", rows)
    return directory


@pytest.fixture(autouse=True)
def caches(tmp_path_factory, monkeypatch):
    """Prepared data goes to a folder of the tests."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets")
