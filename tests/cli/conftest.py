import pytest
from recipes import caches as caches  # for every test of this directory
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
