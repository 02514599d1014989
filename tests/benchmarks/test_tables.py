from benchmarks.tables import render_markdown


def row(mean, ci, **versus):
    loss = {"mean": mean, "ci": ci}
    metric = {"name": "accuracy", "mean": 0.5, "ci": None}
    return {"seeds": 2, "loss": loss, "metric": metric, "trainable_parameters": 1234, **versus, "jaccard": 0.5}


def test_the_columns_are_those_of_the_references_in_the_summary():
    rows = {"a": row(0.4, 0.01, vs_lora={"mean": -0.1, "ci": 0.01, "wins": 2}), "lora": row(0.5, 0.01, vs_lora=None)}
    text = render_markdown({"tasks": {"t_1": rows}}, ["careful"])
    legend, _, tables = text.partition("\n\n")
    assert "Jaccard" in legend
    assert tables.startswith(
        "## t\\_1\n\n| method | seeds | loss | accuracy | trainable parameters | vs lora | Jaccard |"
    )
    assert "| a | 2 | 0.4000 ± 0.0100 | 0.5000 | 1,234 | -0.1000 ± 0.0100 ▼ (2) | 0.50 |" in text
    assert text.endswith("## Notes\n\n- careful\n")
