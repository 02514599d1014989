"""A `Selection` is what the run directory says, and what plain PEFT then adapts."""

import json
import re

import pytest
from models import adamw, lora_bert, lora_mixtral, tiny_bert
from peft import LoraConfig, get_peft_model
from selections import chosen, lora_twins, selected
from survivors import injected

from weightlora import Selection, WeightLora, WeightLoraConfig, save_run
from weightlora.errors import DataError, StateError
from weightlora.run import describe_selection


def test_a_selection_is_what_selection_json_says(tmp_path):
    selector = selected()
    selection = Selection.load(save_run(selector, tmp_path / "run"))
    assert selection.to_dict() == json.loads((tmp_path / "run" / "selection.json").read_text())
    assert selection.to_dict() == describe_selection(selector)
    assert selection.target_modules == selector.kept and len(selection.kept) == 3
    assert selection.target_parameters == []
    assert selection.scores == selector.scores
    assert (selection.rule, selection.final, selection.step) == ("credit", True, 2)
    assert (selection.rank, selection.alpha, selection.rank_pattern, selection.alpha_pattern) == (4, 8, {}, {})
    heads = ["classifier", "score"]
    settings = {"r": 4, "lora_alpha": 8, "use_rslora": False, "task_type": "SEQ_CLS", "modules_to_save": heads}
    assert selection.lora == settings
    assert selection.model is None and selection.seeds is None


def test_the_chosen_list_adapts_the_chosen_modules():
    selection = Selection.of(selector := selected())
    model = get_peft_model(tiny_bert(), LoraConfig(target_modules=selection.target_modules))
    assert injected(model) == injected(selector.model)


def test_the_name_of_the_base_model_is_known(tmp_path):
    tiny_bert().save_pretrained(tmp_path / "base")
    base = type(tiny_bert()).from_pretrained(tmp_path / "base")
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["query", "value"], task_type="SEQ_CLS"))
    assert Selection.of(selected(model)).model == str(tmp_path / "base")


def test_it_can_be_saved_with_its_history(tmp_path):
    selector = selected()
    of_run = Selection.of(selector)
    directory = of_run.save(tmp_path / "first")
    again = Selection.load(directory).save(tmp_path / "second")
    for place in (directory, again):
        assert sorted(path.name for path in place.iterdir()) == ["history.jsonl", "selection.json"]
        lines = (place / "history.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == selector.history
        assert Selection.load(place).to_dict() == of_run.to_dict()
    with pytest.raises(DataError, match="not empty"):
        of_run.save(directory)
    of_run.save(directory, overwrite=True)
    assert Selection.load(directory).target_modules == selector.kept


def test_a_gate_is_no_alpha_of_a_new_training():
    """Gates are trained, and are folded into the scalings of the run: a new training starts without them."""
    selection = Selection.of(selector := selected(selection="stoiht"))
    assert all(adapter.scaling != 2.0 for adapter in selector.adapters)
    assert (selection.alpha, selection.alpha_pattern) == (8, {})


def test_the_rows_are_those_of_the_file():
    """With their gates in the scalings: beside `omega`, a scaling without it would look as if it had none."""
    selection = Selection.of(selected(selection="stoiht"))
    assert list(selection.summary()) == selection.to_dict()["adapters"]


@pytest.mark.parametrize(
    "lora", [{}, {"use_rslora": True}, {"rank_pattern": {"query": 2}, "alpha_pattern": {"key": 3}}]
)
@pytest.mark.parametrize("settings", [{}, {"selection": "stoiht"}, {"expand": "qr", "expand_rank": 6}])
def test_ranks_and_alphas_give_the_scalings_at_the_start(lora, settings):
    selector = selected(lora_bert(**lora), keep=5, **settings)
    selection = Selection.of(selector)
    config = LoraConfig(
        r=selection.rank,
        lora_alpha=selection.alpha,
        use_rslora=selection.use_rslora,
        target_modules=selection.target_modules,
        rank_pattern=selection.rank_pattern,
        alpha_pattern=selection.alpha_pattern,
    )
    model = get_peft_model(tiny_bert(), config)
    modules = dict(model.get_base_model().named_modules())
    ranks = {name: modules[name].r["default"] for name in selection.target_modules}
    scalings = {name: modules[name].scaling["default"] for name in selection.target_modules}
    assert ranks == selector.ranks
    assert scalings == pytest.approx({a.name: a.scaling / selector.omega[a.name] for a in selector.adapters})


def test_fused_experts_are_parameters():
    model = lora_mixtral()
    selector = WeightLora(model, adamw(model), WeightLoraConfig(keep=5, selection="random", select_steps=0, seed=3))
    selection = Selection.of(selector)
    assert {*selection.target_modules, *selection.target_parameters} == set(selector.kept)
    assert selection.target_parameters and all("experts" in name for name in selection.target_parameters)
    model = get_peft_model(
        lora_mixtral().unload(),
        LoraConfig(target_modules=selection.target_modules, target_parameters=selection.target_parameters),
    )
    assert injected(model) == injected(selector.model)


def test_a_run_that_goes_on_loads_and_has_no_answer_yet():
    selection = Selection.of(selected(steps=1))
    assert not selection.final and len(selection.kept) == 12
    with pytest.raises(StateError, match=r"not final after 1 steps \(phase 'select'\): wait"):
        selection.to("json")


def test_an_empty_choice_is_refused():
    values = describe_selection(selected())
    for row in values["adapters"]:
        row["kept"] = False
    selection = Selection.from_dict(values)
    assert (selection.rank, selection.rank_pattern) == (4, {})
    with pytest.raises(StateError, match="chose no module"):
        selection.to("json")


def test_it_shows_itself():
    selection = Selection.of(selected())
    assert re.fullmatch(r"<Selection, rank 4: 3 of 12 modules chosen by credit: .*layer.*>", repr(selection))
    assert selection._repr_html_().count("<tr>") == 13
    assert "3 of 12 modules chosen" in str(selection.summary())
    escaped = Selection.from_dict(json.loads(json.dumps(selection.to_dict()).replace("query", "<script>")))
    assert "<script>" not in escaped._repr_html_() and "&lt;script&gt;" in escaped._repr_html_()
    values = selection.to_dict()
    for row in values["adapters"]:
        row["score"] = None
    assert "layer.0" in str(Selection.from_dict(values).summary())
    figure = selection.plot()
    assert figure.get_suptitle().startswith("3 of 12 LoRA adapters kept")


def test_counts_of_seeds_are_kept(tmp_path):
    values = describe_selection(selected())
    values["seeds"] = {row["name"]: 2 for row in values["adapters"]}
    selection = Selection.load(Selection.from_dict(values).save(tmp_path / "run"))
    assert selection.seeds == values["seeds"]
    assert json.loads(selection.to("json"))["seeds"] == values["seeds"]


def test_names_that_other_names_end_in_are_known():
    assert chosen(lora_twins(), 3).unambiguous is False
    assert chosen(lora_twins(target_modules=r"draft\.layers\.\d+\.(up|down)"), 3).unambiguous
    everything = chosen(lora_twins(target_modules=["up", "down"]), 1)
    assert len(everything.modules) == 12 and everything.unambiguous is False


def test_what_is_no_selector_has_no_selection():
    with pytest.raises(StateError, match=r"^Selection\.of takes a WeightLora, and got 3: a callback has it as"):
        Selection.of(3)


def test_a_choice_does_not_replace_the_adapter_of_a_saved_run(tmp_path):
    directory = save_run(selected(), tmp_path / "run")
    with pytest.raises(DataError, match=r"run holds a training \(adapter\), so it is not overwritten: give another"):
        Selection.load(directory).save(directory, overwrite=True)
    assert (directory / "adapter" / "adapter_model.safetensors").is_file()
