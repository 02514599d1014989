"""The JSON object says all that a program needs."""

import json

from selections import selected

from weightlora import Selection


def test_one_object_with_all_that_a_program_needs():
    selector = selected(keep=2)
    selection = Selection.of(selector)
    assert json.loads(selection.to("json")) == {
        "model": None,
        "rule": "credit",
        "target_modules": selector.kept,
        "target_parameters": [],
        "rank": 4,
        "alpha": 8,
        "use_rslora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
        "adapters": {"before": 12, "after": 2},
        "trainable_parameters": {
            "before": sum(selector.sizes.values()),
            "after": sum(selector.sizes[name] for name in selector.kept),
        },
        "scores": selector.scores,
    }
