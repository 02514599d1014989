"""Writing directories so that nobody ever reads half of one, and locks that end with their process."""

import contextlib
import errno
import glob
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .files import resolved


@contextlib.contextmanager
def replacing_directory(directory: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a directory whole or not at all.

    Yields an empty directory beside it. At the end that takes the place of `directory`, whose old content is deleted
    last. After an error everything is as it was. What a killed process left there is deleted by the next one. Several
    processes may do this to one directory at once: it is the last one's then. It may be read by whom the old one
    allowed, or else by whom the umask allows.
    """
    target = resolved(directory)
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}.weightlora-"
    for left in target.parent.glob(f"{glob.escape(prefix)}*"):
        with locked(left, wait=False) as ours:
            if ours:  # who wrote it was killed
                shutil.rmtree(left, ignore_errors=True)
    with _made(prefix, target.parent) as staging:
        try:
            yield staging
            mode = _mode_of(target, staging)
            _replace(staging, target)
            with contextlib.suppress(FileNotFoundError):  # another process is replacing it again
                target.chmod(mode)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _mode_of(target: Path, beside: Path) -> int:
    """The permissions of a directory, or those that a new one gets."""
    with contextlib.suppress(FileNotFoundError):
        return stat.S_IMODE(target.stat().st_mode)
    made = Path(tempfile.mkdtemp(dir=beside)) / "new"
    made.mkdir()
    mode = stat.S_IMODE(made.stat().st_mode)
    shutil.rmtree(made.parent)
    return mode


@contextlib.contextmanager
def _made(prefix: str, parent: Path) -> Iterator[Path]:
    """A new directory. Its lock says that its writer is alive."""
    while True:
        made = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        with locked(made, wait=True):
            if made.is_dir():  # else another process took it for a left one before it was locked
                yield made
                return


@contextlib.contextmanager
def locked(place: Path, wait: bool) -> Iterator[bool | None]:
    """Hold the lock of a file or directory, which ends with the process.

    Gives whether it is held: False if another process holds it, None where the system has no locks.

    Args:
        place: It may be gone.
        wait: Whether to wait while another process holds the lock.
    """
    try:
        import fcntl

        lock = os.open(place, os.O_RDONLY)
    except (ImportError, OSError):
        yield None
        return
    held: bool | None = True
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held = False
        except OSError:
            held = None
        yield held
    finally:
        os.close(lock)


def _replace(new: Path, directory: Path) -> None:
    """Put a directory in the place of another. Of processes that do it at the same moment, the last one wins."""
    aside = Path(tempfile.mkdtemp(prefix=f".{directory.name}-old-", dir=directory.parent))
    old = aside / directory.name
    try:
        while True:
            with contextlib.suppress(FileNotFoundError):  # there is none, or another process is moving it
                if any(directory.iterdir()):
                    shutil.rmtree(old, ignore_errors=True)  # of a turn in which another process was quicker
                    os.replace(directory, old)
            try:
                os.replace(new, directory)
                break
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
    except BaseException:
        if old.exists():
            os.replace(old, directory)  # where this fails too, the old directory stays aside, and whole
        aside.rmdir()
        raise
    shutil.rmtree(aside)
