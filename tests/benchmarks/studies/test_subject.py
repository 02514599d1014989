"""What the side studies measure is the model of the job, as it is before there are adapters."""

import torch
from benchmarks.studies.subject import load_subject
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from recipes import arguments
from safetensors.torch import load_file

from weightlora.adapters import find_adapters
from weightlora.train import parse, prepare


def test_a_subject_has_the_models_weights_and_the_training_rows(world, tmp_path):
    given = ["--dataset", world / "glue", "--method", "lora", "--target_modules", "query_proj", "key_proj"]
    job = prepare(parse(arguments(world, "cola", "deberta", tmp_path, *given)))
    subject = load_subject(job)
    assert type(subject.model).__name__ == "DebertaV2ForSequenceClassification"
    assert not any(isinstance(module, BaseTunerLayer) for module in subject.model.modules())
    saved, weights = load_file(world / "deberta" / "model.safetensors"), subject.model.state_dict()
    shared = saved.keys() & weights.keys()
    assert len(shared) > 30 and all(torch.equal(saved[name], weights[name]) for name in shared)

    assert subject.train == [job.work.train[index] for index in range(24)]
    adapted = get_peft_model(subject.model, LoraConfig(r=2, **subject.target))
    assert [adapter.name.split(".")[-1] for adapter in find_adapters(adapted)] == ["query_proj", "key_proj"] * 2
    assert adapted.peft_config["default"].task_type == "SEQ_CLS"
    batch = subject.collate(subject.train[:3])
    assert batch["labels"].tolist() == [0, 1, 0]
    assert adapted(**batch).logits.shape == (3, 2)
