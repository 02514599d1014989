import pytest

from weightlora.compare.clock import Clock, spell


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_nothing_is_said_before_something_is_known():
    clock = Clock(["a", "a"], 1)
    assert clock.left() is None and Clock([], 1).left() == 0


def test_a_running_one_tells_how_long_its_like_take():
    time = Time()
    clock = Clock(["a", "a", "b"], 1, time)
    clock.step("a 0", "a", 0.0)
    time.now = 10.0
    clock.step("a 0", "a", 0.5)
    assert clock.elapsed("a 0") == 10 and clock.elapsed("a 1") is None
    assert clock.left() == pytest.approx(10 + 20 + 20)
    clock.end("a 0", "a", 20.0)
    assert clock.left() == pytest.approx(40)


def test_runs_at_a_time_divide_and_the_longest_counts():
    time = Time()
    clock = Clock(["a"] * 4, 2, time)
    clock.know("a", 100.0)
    assert clock.left() == 200
    for name in ("a 0", "a 1", "a 2", "a 3"):
        clock.end(name, "a", 100.0)
    assert clock.left() == 0
    clock = Clock(["a"], 8, time)
    clock.know("a", 100.0)
    clock.step("a 0", "a", 0.0)
    assert clock.left() == 100, "eight at a time do not make one run shorter"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "time left not known yet"),
        (40, "about 40 s left"),
        (720, "about 12 min left"),
        (12600, "about 3.5 h left"),
    ],
)
def test_a_time_is_spelled(seconds, text):
    assert spell(seconds) == text
