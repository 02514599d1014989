"""Archives: a download is whole and the right file, or nothing is written."""

import hashlib
import io
import sys
from pathlib import Path

import pytest
from benchmarks import archives
from benchmarks.archives import ARCHIVES, Archive, fetch, find_archive, main

from weightlora.errors import DataError

CONTENT = b"an archive"
ARCHIVE = Archive("https://registry.example/it/-/it-1.tgz", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def registry(monkeypatch, tmp_path):
    """Answers every download with its content, into an environment in a folder of the test."""
    answers: dict[str, bytes] = {}

    def urlopen(url: str, timeout: float) -> io.BytesIO:
        if url not in answers:
            raise OSError("no route to host")
        return io.BytesIO(answers[url])

    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(archives.urllib.request, "urlopen", urlopen)
    return answers


def test_a_right_file_is_written_once(registry):
    registry[ARCHIVE.url] = CONTENT
    path = fetch(ARCHIVE)
    assert path == Path(sys.prefix) / "share" / "weightlora" / "it-1.tgz" and path.read_bytes() == CONTENT
    registry.clear()
    assert fetch(ARCHIVE) == path == find_archive("it-1.tgz")
    path.write_bytes(CONTENT[:3])
    with pytest.raises(DataError, match="could not be downloaded"):
        fetch(ARCHIVE)


def test_another_file_is_refused_and_not_written(registry):
    registry[ARCHIVE.url] = CONTENT[:3]
    with pytest.raises(DataError, match=f"not {ARCHIVE.sha256}: .* was not kept"):
        fetch(ARCHIVE)
    with pytest.raises(DataError, match=r"it-1.tgz is missing\): run make setup, or python -m benchmarks.archives"):
        find_archive("it-1.tgz")


def test_set_up_stops_where_a_download_fails(registry, monkeypatch, capsys):
    assert main() == 2
    assert "no route to host" in capsys.readouterr().err
    monkeypatch.setattr(archives, "ARCHIVES", {"it": ARCHIVE})
    registry[ARCHIVE.url] = CONTENT
    assert main() == 0


def test_set_up_has_downloaded_every_archive(monkeypatch):
    monkeypatch.setattr(archives.urllib.request, "urlopen", None)  # no network
    assert all(fetch(archive).exists() for archive in ARCHIVES.values())
