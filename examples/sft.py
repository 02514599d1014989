"""Supervised fine-tuning with TRL and LoRA.

Lines with `# +` are added for WeightLoRA. `# was:` shows what a line replaces.

python examples/sft.py MODEL data.jsonl out    (each line has "text" or "messages")
"""

import sys

import torch
from datasets import load_dataset
from peft import LoraConfig
from trl import SFTConfig

from weightlora import WeightLoraConfig  # +
from weightlora import WeightLoraSFTTrainer as SFTTrainer  # was: from trl import SFTTrainer

model_id, data, output_dir = sys.argv[1:4]
steps = int(sys.argv[4]) if len(sys.argv) > 4 else 1000

trainer = SFTTrainer(
    model=model_id,
    args=SFTConfig(output_dir, max_steps=steps, learning_rate=2e-4, report_to="none", bf16=torch.cuda.is_available()),
    train_dataset=load_dataset("json", data_files=data, split="train"),
    peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
    weightlora=WeightLoraConfig(keep_parameters=0.25),  # +
)
trainer.train()
trainer.save_model(output_dir)
