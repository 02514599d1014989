"""kill -9 at random moments: the run goes on, and ends bit for bit as it would have."""

import json
import os
import random
from pathlib import Path

import pytest
from fuzzing import VARIABLE
from processes import fork_server

SCRIPT = Path(__file__).with_name("random_kills.py")


@pytest.mark.slow
def test_a_run_that_was_killed_at_any_moment_ends_as_if_it_had_not_been():
    more = os.environ.get(VARIABLE)
    count, seed = 2 * int(more or 2), 0 if more is None else random.SystemRandom().randrange(10**6)
    done = fork_server().run(str(SCRIPT), str(count), str(seed), limit=30 * count + 120)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"setting"')]
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-3000:]}"
    assert len(rows) == 4 and sum(row["kills"] for row in rows) >= count
    assert not any(row["differ"] for row in rows)
