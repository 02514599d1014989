"""Directories appear whole or not at all, whoever else writes them, and to whom the old ones were open."""

import os
import signal
import subprocess
import sys

import pytest

from weightlora import directories
from weightlora.directories import replacing_directory


def test_a_directory_is_replaced_whole_or_stays(tmp_path):
    target = tmp_path / "run"
    with replacing_directory(target) as staging:
        (staging / "first").touch()
    assert [path.name for path in target.iterdir()] == ["first"]
    with pytest.raises(RuntimeError), replacing_directory(target) as staging:
        (staging / "second").touch()
        raise RuntimeError
    assert [path.name for path in target.iterdir()] == ["first"]
    with replacing_directory(target) as staging:
        (staging / "third").touch()
    assert [path.name for path in target.iterdir()] == ["third"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_a_killed_process_left_is_deleted_and_what_another_one_writes_is_not(tmp_path):
    """The other one writes to the same place, and is not done."""
    target = tmp_path / "run[1]"
    code = f"""
import os, signal
from weightlora.directories import replacing_directory
with replacing_directory({str(target)!r}) as staging:
    (staging / "half").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    (mine := tmp_path / ".run[1]-mine.bak").mkdir()
    with replacing_directory(target) as first:
        with replacing_directory(target) as second:
            (second / "second").touch()
            assert sorted(tmp_path.iterdir()) == sorted([first, second, mine])
        (first / "first").touch()
    assert sorted(tmp_path.rglob("*")) == sorted([mine, target, target / "first"])


def test_processes_that_replace_one_directory_at_once_all_succeed_and_leave_nothing_else(tmp_path):
    """In the moment in which one of them has moved the old directory away, another one puts its own there."""
    target = tmp_path / "run"
    code = f"""
import sys
from weightlora.directories import replacing_directory
for turn in range(200):
    with replacing_directory({str(target)!r}) as staging:
        for name in "abc":
            (staging / name).write_text(f"{{sys.argv[1]}} {{turn}}")
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, str(number)]) for number in range(4)]
    assert [writer.wait() for writer in writers] == [0] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert len({path.read_text() for path in target.iterdir()}) == 1
    assert sorted(path.name for path in target.iterdir()) == ["a", "b", "c"]


def test_a_directory_that_comes_back_while_it_is_replaced_is_replaced_too(tmp_path, monkeypatch):
    """As above, on every machine: the other process is quicker once."""
    target = tmp_path / "run"
    target.mkdir()
    (target / "old").touch()
    move, moves = os.replace, []

    def replace(source, goal):
        move(source, goal)
        moves.append(goal)
        if len(moves) == 1:
            target.mkdir()
            (target / "theirs").touch()

    with replacing_directory(target) as staging:
        (staging / "ours").touch()
        monkeypatch.setattr(os, "replace", replace)
    assert sorted(tmp_path.rglob("*")) == [target, target / "ours"]


def test_a_directory_that_may_not_be_written_to_leaves_no_copies_that_cannot_be_deleted(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old").touch()
    (tmp_path / "run").chmod(0o555)
    modes = []

    def refuse(new, directory):  # as for all but root
        modes.append(new.stat().st_mode & 0o777)
        raise PermissionError

    monkeypatch.setattr(directories, "_replace", refuse)
    with pytest.raises(PermissionError), directories.replacing_directory(tmp_path / "run") as staging:
        (staging / "new").touch()
    assert modes == [0o700] and [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o755), (0o077, 0o700), (0o002, 0o775)])
def test_a_directory_is_open_to_whom_the_umask_allows_and_stays_so(tmp_path, umask, mode):
    target, kept = tmp_path / "new", tmp_path / "private"
    kept.mkdir()
    kept.chmod(0o710)
    before = os.umask(umask)
    try:
        for one in (target, kept):
            with replacing_directory(one) as staging:
                (staging / "file").touch()
                assert staging.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)
    assert [one.stat().st_mode & 0o777 for one in (target, kept)] == [mode, 0o710]
    assert [path.name for path in target.iterdir()] == ["file"]
