"""Thirds of the depth count layers only."""

from benchmarks.depth import thirds_of_depth


def test_thirds_of_the_depth():
    names = [f"encoder.layer.{layer}.query" for layer in range(4)]
    thirds = ["lower", "lower", "middle", "upper"]
    assert thirds_of_depth([*names, "pooler.dense"]) == [*thirds, None], "the pooler is not a layer"
    assert thirds_of_depth(["head"]) == [None]


def test_encoder_and_decoder_are_one_depth():
    names = [
        f"{part}.layers.{layer}.{kind}" for part in ("encoder", "decoder") for layer in (0, 1, 2) for kind in "qv"
    ]
    assert thirds_of_depth(names) == ["lower"] * 4 + ["middle"] * 4 + ["upper"] * 4
