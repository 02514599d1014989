"""After the choice, the backward pass ends at the lowest adapter that was kept, under gradient checkpointing too."""

from functools import partial

import pytest
import torch
from loops import make_trainer
from models import lora_bert, save_causal
from peft import LoraConfig, get_peft_model

from weightlora import WeightLoraCallback, WeightLoraConfig


def watch_backward(modules: dict[str, torch.nn.Module]) -> list[set[str]]:
    """For each forward pass to come, the modules whose output the backward pass reaches."""
    reached: list[set[str]] = []

    def watch(name, module, args, output):
        output = output[0] if isinstance(output, tuple) else output
        if not torch.is_grad_enabled():  # what checkpointing will compute again
            return
        if name == "embeddings":
            reached.append(set())
        if output.requires_grad:
            step = reached[-1]
            output.register_hook(lambda _: step.add(name))

    for name, module in modules.items():
        module.register_forward_hook(partial(watch, name))
    return reached


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
@pytest.mark.parametrize("reentrant", [False, True])
def test_after_the_disconnect_backward_ends_at_the_lowest_survivor_under_checkpointing(tmp_path, reentrant):
    model = lora_bert(layers=3, layers_to_transform=[1, 2], target_modules=["query", "value"])
    model.enable_input_require_grads()  # as TRL does
    bert = model.base_model.model.bert
    reached = watch_backward({"embeddings": bert.embeddings, **{f"{i}": bert.encoder.layer[i] for i in range(3)}})
    callback = WeightLoraCallback(WeightLoraConfig(keep=2, select_steps=4))
    settings = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": reentrant}}
    run = make_trainer(tmp_path, model, callback, **settings)
    run.train()
    everything = {"embeddings", "0", "1", "2"}
    lowest = min(int(name.split(".")[3]) for name in callback.selector.kept)
    left = everything if reentrant else {str(i) for i in range(lowest, 3)}
    assert reached == [everything] * 4 + [left] * 2, "checkpointing has asked for the gradient at the embeddings"
    assert all(adapter.factors[1].abs().sum() > 0 for adapter in callback.selector.adapters)


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
def test_it_ends_there_after_resuming_too(tmp_path):
    settings = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    for checkpoint in (None, str(tmp_path / "checkpoint-4")):
        model = lora_bert(layers=3, layers_to_transform=[1, 2], target_modules=["query", "value"])
        model.enable_input_require_grads()
        reached = watch_backward({"embeddings": model.base_model.model.bert.embeddings})
        callback = WeightLoraCallback(WeightLoraConfig(keep=2, select_steps=3))
        run = make_trainer(tmp_path, model, callback, save_strategy="steps", save_steps=4, **settings)
        run.train(resume_from_checkpoint=checkpoint)
    assert reached == [set()] * 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_it_ends_there_under_trls_sft_trainer_too(tmp_path):
    """Which checkpoints by default, and asks for the gradient at the embeddings a second time."""
    pytest.importorskip("trl", reason="trl is not installed")
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig

    from weightlora import WeightLoraSFTTrainer

    save_causal(tmp_path / "base", ["a", "b"])
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], layers_to_transform=[1], task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), lora)
    run = WeightLoraSFTTrainer(
        model,
        SFTConfig(str(tmp_path), max_steps=4, use_cpu=True, bf16=False, report_to=[], save_strategy="no"),
        train_dataset=Dataset.from_dict({"text": ["a b a b", "b a b a"] * 16}),
        processing_class=AutoTokenizer.from_pretrained(tmp_path / "base"),
        weightlora=WeightLoraConfig(keep=1, select_steps=2),
    )
    assert run.args.gradient_checkpointing
    llama = model.base_model.model.model
    reached = watch_backward({"embeddings": llama.embed_tokens, **{f"{i}": llama.layers[i] for i in range(2)}})
    run.train()
    assert reached == [{"embeddings", "0", "1"}] * 2 + [{"1"}] * 2
