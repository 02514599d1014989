"""Every rule of the config holds on construction, and what breaks one is told its value, the rule and the remedy."""

import json
from dataclasses import asdict, fields
from itertools import compress

import numpy as np
import pytest
import torch

from weightlora import WeightLoraConfig
from weightlora.errors import ConfigError

GATES = {"selection": "stoiht"}


def test_the_defaults_are_those_of_the_documentation():
    assert asdict(WeightLoraConfig()) == {
        "keep": None,
        "keep_parameters": 0.25,
        "select_steps": 0,
        "probe_batches": 4,
        "select_memory": "usual",
        "warmup_steps": 0,
        "threshold_every": 1,
        "rounds": 1,
        "omega_lr": 5.0,
        "omega_follows_lr": False,
        "constraint": "l0",
        "rank_by": "value",
        "selection": "gradient",
        "expand": "none",
        "expand_rank": "budget",
        "seed": 0,
        "adapter_name": None,
        "keep_step_time": None,
        "keep_memory": None,
    }


def test_every_field_is_documented():
    documentation = WeightLoraConfig.__doc__
    assert [field.name for field in fields(WeightLoraConfig) if f" {field.name}: " not in documentation] == []


def test_a_probe_chooses_before_the_first_step_and_needs_no_number_of_steps():
    assert WeightLoraConfig(selection="gradient").select_steps == 0
    assert WeightLoraConfig(selection="gradient", select_steps=0).resolve(None).select_steps == 0
    with pytest.raises(
        ConfigError, match=r"^select_steps=60 has no effect with selection='gradient', which chooses b"
    ):
        WeightLoraConfig(selection="gradient", select_steps=60)
    with pytest.raises(
        ConfigError, match=r"^probe_batches=8 is a setting of the probe, and selection='credit' has no"
    ):
        WeightLoraConfig(selection="credit", probe_batches=8)
    with pytest.raises(ConfigError, match=r"^probe_batches=0 must be a whole number of at least 1\.$"):
        WeightLoraConfig(selection="gradient", probe_batches=0)


def test_a_budget_of_parameters_may_be_a_share():
    ((number, most),) = WeightLoraConfig(keep_parameters=0.25).budget_for([10, 20, 30, 43]).rounds
    assert (number, most) == (None, 25)
    with pytest.raises(
        ConfigError, match=r"^keep_parameters=1\.5 is not a fraction in \(0, 1\): for a number of param"
    ):
        WeightLoraConfig(keep_parameters=1.5)


def test_the_probe_and_its_control_keep_a_quarter_of_the_parameters_and_other_rules_a_quarter_of_the_adapters():
    for settings, budget in (
        ({}, (None, 0.25)),
        ({"selection": "gradient", "seed": 3}, (None, 0.25)),
        ({"selection": "credit"}, (0.25, None)),
        ({"select_steps": 40}, (0.25, None)),
        ({"selection": "random"}, (None, 0.25)),
        ({"selection": "random", "select_steps": 0}, (None, 0.25)),
        ({"selection": "stoiht"}, (0.25, None)),
        ({"keep": 3}, (3, None)),
        ({"keep": 3, "keep_parameters": 99}, (3, 99)),
        ({"keep_memory": "1GB"}, (None, None)),
    ):
        config = WeightLoraConfig(**settings)
        assert (config.keep, config.keep_parameters) == budget, settings
    sizes = [10, 20, 30, 40]
    assert WeightLoraConfig().budget_for(sizes).rounds == ((None, 25),)
    assert WeightLoraConfig(keep=0.5).budget_for(sizes).rounds == ((2, 100),)


@pytest.mark.parametrize(("fraction", "n"), [(0.7, 10), (0.35, 20), (0.29, 100)])
def test_a_fraction_of_the_parameters_has_room_for_that_fraction_of_equal_adapters(fraction, n):
    [(_, most)] = WeightLoraConfig(keep_parameters=fraction).budget_for([4608] * n).rounds
    assert most == round(fraction * n) * 4608


@pytest.mark.parametrize("sizes", [[8], [30, 70], [26, 26, 40], [10, 10, 10]])
@pytest.mark.parametrize("settings", [{}, {"selection": "random", "select_steps": 4, "rounds": 2}])
def test_the_default_keeps_the_best_adapter_where_none_fits_into_a_quarter(sizes, settings):
    config = WeightLoraConfig(**settings)
    budget = config.budget_for(sizes)
    for best in range(len(sizes)):
        left = list(range(len(sizes)))
        for over in range(config.rounds):
            score = torch.tensor([float(index == best) for index in left])
            mask = budget.best(score, [sizes[index] for index in left], over)
            left = list(compress(left, mask.tolist()))
        assert left == [best]


@pytest.mark.parametrize("settings", [{"keep_parameters": 0.3}, {"keep_parameters": 9}, {"keep": 2}])
def test_a_given_budget_without_room_for_an_adapter_is_refused(settings):
    with pytest.raises(ConfigError, match="less than the"):
        WeightLoraConfig(**{"keep_parameters": 0.25} | settings).budget_for([10, 10, 10])


def test_a_budget_of_parameters_stands_alone():
    config = WeightLoraConfig(keep_parameters=500)
    assert (config.keep, config.keep_parameters) == (None, 500)


def test_a_budget_of_time_or_memory_stands_alone_or_beside_a_number():
    for settings, resource in (({"keep_step_time": 0.6}, "step_time"), ({"keep_memory": "6GiB"}, "memory")):
        alone, both = WeightLoraConfig(**settings), WeightLoraConfig(**settings, keep=3)
        assert alone.resource == both.resource == resource
        assert alone.budget_for([10, 20, 30, 40]).rounds == ((None, 100),)
        assert both.budget_for([10, 20, 30, 40]).rounds == ((3, 100),)  # without the share of parameters
        assert repr(alone) == f"WeightLoraConfig({next(iter(settings))}={next(iter(settings.values()))!r})"
    assert WeightLoraConfig().resource is None


@pytest.mark.parametrize(
    "settings",
    [
        {"keep": 1},
        {"keep": 0.999},
        {"keep_parameters": 1},
        {"keep_parameters": 0.001},
        {"selection": "random", "select_steps": 0},
        {"selection": "credit", "select_steps": 1},
        {"selection": "stoiht", "select_steps": 2},
        {"select_steps": 5, "rounds": 5},
        GATES | {"select_steps": 10, "warmup_steps": 9},
        GATES | {"select_steps": 10, "warmup_steps": 7, "rounds": 3},
        GATES | {"threshold_every": 1000, "constraint": "simplex", "rank_by": "magnitude", "omega_follows_lr": True},
        {"expand": "qr", "expand_rank": 1},
        {"keep_step_time": 0.99, "keep": 3},
        {"keep_memory": 1},
        {"keep_memory": "1.5 GB", "selection": "gradient"},
    ],
    ids=str,
)
def test_the_last_value_that_is_allowed_is_accepted_and_survives_json(settings):
    config = WeightLoraConfig(**settings)
    assert {name: getattr(config, name) for name in settings} == settings
    assert WeightLoraConfig(**json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"keep": 3, "keep_parameters": 9, "rounds": 2},
            r"^keep=3 and keep_parameters=9 cannot be reached in rounds=2: leave rounds at 1, or .*\.$",
        ),
        ({"keep": 0}, r"^keep=0 must be a number of adapters of at least 1, or a fraction in \(0, 1\), as in keep=8"),
        ({"keep": -1}, r"^keep=-1 must be a number of adapters of at least 1"),
        ({"keep": True}, r"^keep=True must be a number of adapters"),
        ({"keep": "3"}, r"^keep='3' must be a number of adapters"),
        ({"keep": 0.0}, r"^keep=0\.0 is not a fraction in \(0, 1\): for a number of adapters write a whole number\.$"),
        ({"keep": 1.0}, r"^keep=1\.0 is not a fraction in \(0, 1\): for a number of adapters write 1\.$"),
        ({"keep": -0.5}, r"^keep=-0\.5 is not a fraction"),
        ({"keep": float("nan")}, r"^keep=nan is not a fraction"),
        (
            {"keep_parameters": 0},
            r"^keep_parameters=0 must be a whole number of at least 1, or a fraction in \(0, 1\)\.$",
        ),
        ({"keep_parameters": "0.25"}, r"^keep_parameters='0.25' must be a whole number of at least 1, or a fraction"),
        (
            {"keep_step_time": 1.0},
            r"^keep_step_time=1\.0 must be a fraction in \(0, 1\) of the step time of LoRA on all ",
        ),
        ({"keep_step_time": 1}, r"^keep_step_time=1 must be a fraction"),
        ({"keep_step_time": "0.5"}, r"^keep_step_time='0\.5' must be a fraction"),
        (
            {"keep_memory": "6 gigs"},
            r"^keep_memory='6 gigs' is not an amount of memory: give bytes, or a number with one of ",
        ),
        ({"keep_memory": 0}, r"^keep_memory=0 is not an amount of memory"),
        (
            {"keep_memory": "6GiB", "keep_step_time": 0.5},
            r"^keep_step_time and keep_memory cannot both be set: give one of them\.$",
        ),
        (
            {"keep_step_time": 0.5, "rounds": 2},
            r"^keep_step_time=0\.5 cannot be reached in rounds=2: leave rounds at 1\.$",
        ),
        (
            {"keep_step_time": 0.5, "select_memory": "low"},
            r"^select_memory='low' recomputes activations, and keep_step_",
        ),
        (
            {"keep_memory": "1GB", "expand": "qr"},
            r"^expand='qr' lets adapters grow, and keep_memory is measured before",
        ),
        ({"constraint": "l1"}, r"^constraint='l1' is not known: choose one of 'l0', 'simplex'\.$"),
        ({"rank_by": "size"}, r"^rank_by='size' is not known: choose one of 'value', 'magnitude'\.$"),
        (
            {"selection": "best"},
            r"^selection='best' is not known: choose one of 'auto', 'credit', 'gradient', 'stoiht', 'random'",
        ),
        ({"expand": True}, r"^expand=True is not known: choose one of 'none', 'random', 'qr', 'restart'\.$"),
        ({"warmup_steps": -1}, r"^warmup_steps=-1 must be a whole number of at least 0\.$"),
        ({"threshold_every": 0}, r"^threshold_every=0 must be a whole number of at least 1\.$"),
        ({"rounds": 0}, r"^rounds=0 must be a whole number of at least 1\.$"),
        ({"rounds": True}, r"^rounds=True must be a whole number of at least 1\.$"),
        ({"rounds": 1.5}, r"^rounds=1\.5 must be a whole number of at least 1\.$"),
        (
            {"selection": "random", "select_steps": -1},
            r"^select_steps=-1 must be a whole number of at least 0, or a fraction in",
        ),
        (
            {"selection": "credit", "select_steps": 0},
            r"^select_steps=0 must be a whole number of at least 1, or a fraction in",
        ),
        (
            {"selection": "stoiht", "select_steps": 1},
            r"^select_steps=1 must be a whole number of at least 2, or a fraction in",
        ),
        (
            {"selection": "random", "select_steps": 0, "rounds": 2},
            r"^rounds=2 needs steps: set select_steps and selection='credit', or rounds=1\.$",
        ),
        (
            {"selection": "gradient", "rounds": 2},
            r"^rounds=2 needs steps: set select_steps and selection='credit', or rounds=1\.$",
        ),
        ({"warmup_steps": 3}, r"^warmup_steps=3 is a setting of gates, .* drop it, or set selection='stoiht'\.$"),
        ({"select_steps": 2, "rounds": 3}, r"^select_steps=2 leaves 2 steps .* rounds=3: raise select_steps\.$"),
        (
            GATES | {"select_steps": 10, "warmup_steps": 10},
            r"^select_steps=10 leaves 0 steps after warmup_steps=10, too few for rounds=1: raise select_steps\.$",
        ),
        ({"omega_lr": 0.0}, r"^omega_lr=0\.0 is not a valid step size: give a positive number\.$"),
        ({"omega_lr": float("inf")}, r"^omega_lr=inf is not a valid step size"),
        ({"omega_lr": float("nan")}, r"^omega_lr=nan is not a valid step size"),
        ({"expand": "qr", "expand_rank": 0}, r"^expand_rank=0 must be a whole number of at least 1"),
        (
            {"expand": "qr", "expand_rank": "all"},
            r"^expand_rank='all' must be a whole number of at least 1, or 'budget'",
        ),
        ({"expand_rank": 16}, r"^expand_rank=16 has no effect with expand='none': drop it"),
        ({"omega_lr": "x"}, r"^omega_lr='x' is not a valid step size: give a positive number"),
        ({"omega_lr": None}, r"^omega_lr=None is not a valid step size"),
        ({"seed": -1}, r"^seed=-1 must be a whole number of at least 0"),
        ({"seed": "x"}, r"^seed='x' must be a whole number"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_bad_value_is_told_its_rule_and_the_remedy(settings, message):
    with pytest.raises(ValueError, match=message):
        WeightLoraConfig(**settings)


@pytest.mark.parametrize("selection", ["credit", "random"])
@pytest.mark.parametrize(
    "setting",
    [
        {"warmup_steps": 1},
        {"threshold_every": 2},
        {"constraint": "simplex"},
        {"rank_by": "magnitude"},
        {"omega_follows_lr": True},
        {"omega_lr": 0.2},
    ],
    ids=str,
)
def test_settings_of_gates_are_refused_where_there_are_none(selection, setting):
    ((name, value),) = setting.items()
    message = f"^{name}={value!r} is a setting of gates, and selection='{selection}' has none: drop it, or set "
    with pytest.raises(ValueError, match=message):
        WeightLoraConfig(selection=selection, **setting)
    assert getattr(WeightLoraConfig(selection="stoiht", **setting), name) == value


@pytest.mark.parametrize(
    ("keep", "n", "number"),
    [(0.25, 36, 9), (0.25, 1, 1), (0.01, 10, 1), (0.3, 5, 2), (0.34, 10, 3), (0.99, 10, 10), (1, 1, 1), (7, 36, 7)],
)
def test_a_fraction_is_rounded_and_gives_one_at_least(keep, n, number):
    kept = WeightLoraConfig(keep=keep).number_to_keep(n)
    assert kept == number
    assert type(kept) is int


def test_more_adapters_than_the_model_has_are_refused():
    config = WeightLoraConfig(keep=13)
    assert config.number_to_keep(13) == 13
    with pytest.raises(ValueError, match=r"^keep=13 is more than the model's 12 LoRA adapters: keep 12 or fewer\.$"):
        config.number_to_keep(12)


def test_a_budget_of_parameters_fixes_no_number_of_adapters():
    with pytest.raises(ValueError, match=r"^keep is not given, so the number of adapters"):
        WeightLoraConfig(keep_parameters=500).number_to_keep(12)


PAPER = {"selection": "stoiht", "omega_lr": 5.0, "omega_follows_lr": True}
PLUS = PAPER | {"threshold_every": 5, "rounds": 3, "expand": "qr"}


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ({}, PAPER),
        ({"plus": True}, PLUS),
        ({"keep": 5, "omega_lr": 1.0}, PAPER | {"keep": 5, "omega_lr": 1.0}),
        ({"plus": True, "rounds": 2, "keep_parameters": 99}, PLUS | {"rounds": 2, "keep_parameters": 99}),
    ],
    ids=str,
)
def test_the_papers_settings_are_the_authors_and_can_be_overridden(arguments, settings):
    """Against METHOD's list: SGD at 5 under the LR schedule, by value, every step; plus: halvings, every 5, QR."""
    assert WeightLoraConfig.paper(**arguments) == WeightLoraConfig(**settings)
    assert WeightLoraConfig.paper(**arguments).rank_by == "value"


def test_a_fraction_of_the_training_becomes_a_number_of_steps():
    config = WeightLoraConfig(selection="credit")
    assert config.resolve(1000).select_steps == 200 and config.select_steps == 0.2
    assert WeightLoraConfig(select_steps=0.5).resolve(31).select_steps == 16
    assert config.resolve(3).select_steps == 1, "credit needs one step"
    assert WeightLoraConfig(**GATES).resolve(3).select_steps == 2, "gates need two"
    assert WeightLoraConfig(rounds=3).resolve(5).select_steps == 3, "each round needs one"
    assert config.resolve(None, earlier=77).select_steps == 77
    number = WeightLoraConfig(select_steps=10)
    assert number.resolve(None) is number and number.resolve(10) is number
    assert number.resolve(np.int64(10)) is number


@pytest.mark.parametrize(
    ("config", "total", "message"),
    [
        (
            WeightLoraConfig(rounds=2),
            None,
            r"select_steps=0\.2 is a fraction of the training.*: pass total_steps=\.\.\., or",
        ),
        (WeightLoraConfig(select_steps=0.2), 0, r"^total_steps=0 leaves no steps to select in: train 1 or more\.$"),
        (WeightLoraConfig(**GATES), 1, r"^total_steps=1 leaves no steps to select in: train 2 or more\.$"),
        (WeightLoraConfig(select_steps=0.2), "10", r"^total_steps='10' must be a whole number of at least 0\.$"),
        (WeightLoraConfig(select_steps=2), 7.5, r"^total_steps=7\.5 must be a whole number of at least 0\.$"),
        (WeightLoraConfig(select_steps=9), 8, r"select_steps=9 is longer than the training of 8 steps: lower it"),
    ],
)
def test_a_number_of_steps_that_cannot_be_is_refused(config, total, message):
    with pytest.raises(ConfigError, match=message):
        config.resolve(total)


@pytest.mark.parametrize("select_steps", [0.0, 1.0, 1.5, -0.2])
def test_a_fraction_lies_between_0_and_1(select_steps):
    with pytest.raises(ConfigError, match=r"is not a fraction in \(0, 1\): for a number of steps write"):
        WeightLoraConfig(select_steps=select_steps)


def test_numbers_of_numpy_do():
    odd = {"selection": "stoiht", "omega_lr": np.float32(2)}
    config = WeightLoraConfig(keep=np.int64(3), select_steps=np.int32(40), seed=np.uint8(5), **odd)
    assert [type(value) for value in (config.keep, config.select_steps, config.seed)] == [int, int, int]
    assert config == WeightLoraConfig(keep=3, select_steps=40, seed=5, selection="stoiht", omega_lr=2.0)
    json.dumps(asdict(config))


def test_repr_shows_what_differs_from_the_default():
    assert repr(WeightLoraConfig()) == "WeightLoraConfig()"
    assert repr(WeightLoraConfig(keep=9, rounds=2)) == "WeightLoraConfig(keep=9, rounds=2)"
    assert repr(WeightLoraConfig(keep_parameters=500)) == "WeightLoraConfig(keep_parameters=500)"
    assert repr(WeightLoraConfig(selection="credit")) == "WeightLoraConfig(selection='credit')"
    assert repr(WeightLoraConfig(selection="gradient")) == "WeightLoraConfig()"
    assert repr(WeightLoraConfig(keep=0.25)) == "WeightLoraConfig(keep=0.25)"
    both = "WeightLoraConfig(keep=0.25, keep_parameters=500)"
    assert repr(WeightLoraConfig(keep=0.25, keep_parameters=500)) == both
    assert repr(WeightLoraConfig(keep_parameters=0.3, selection="random", select_steps=4)) == (
        "WeightLoraConfig(keep_parameters=0.3, select_steps=4, selection='random')"
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"keep": 0.5, "selection": "stoiht", "warmup_steps": 3},
        {"selection": "random", "select_steps": 0},
        {"selection": "random"},
        {"select_steps": 30},
        {"select_steps": 0.2},
        {"rounds": 3},
        {"selection": "credit", "rounds": 2, "select_steps": 0.5},
        {"probe_batches": 9},
    ],
)
def test_repr_gives_the_same_settings_back(settings):
    config = WeightLoraConfig(**settings)
    assert eval(repr(config)) == config


def test_asking_for_a_choice_while_training_means_credit_and_else_gradients_choose():
    assert WeightLoraConfig().selection == WeightLoraConfig(select_steps=0).selection == "gradient"
    for settings in ({"select_steps": 200}, {"select_steps": 0.2}, {"rounds": 2}):
        assert WeightLoraConfig(**settings).selection == "credit"
    assert WeightLoraConfig(rounds=2).select_steps == 0.2
