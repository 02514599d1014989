"""The extra `train`: the Trainer, and the commands that train and select."""

from pathlib import Path

from peft import PeftModel
from tiny import TRAIN, batch, command, llama, lora, save_inputs, weightlora
from transformers import TrainingArguments

from weightlora import WeightLoraConfig, WeightLoraTrainer

rows = [
    dict(zip(given, values, strict=True)) for given in [batch()] * 10 for values in zip(*given.values(), strict=True)
]
trainer = WeightLoraTrainer(
    lora(),
    TrainingArguments("checkpoints", max_steps=40, save_steps=40, use_cpu=True, disable_tqdm=True, report_to="none"),
    train_dataset=rows,
    weightlora=WeightLoraConfig(keep=3, select_steps=30),
)
trainer.train()
assert len(trainer.weightlora.selector.kept) == 3
trainer.save_model("out")
PeftModel.from_pretrained(llama(), "out")
PeftModel.from_pretrained(llama(), "checkpoints/checkpoint-40")

save_inputs()
command("train", *TRAIN, "--output_dir", "run")
PeftModel.from_pretrained(llama(), "run/adapter")
assert Path("run/result.json").is_file()
assert "proj" in weightlora("select", *TRAIN, "--format", "regex")[0]
