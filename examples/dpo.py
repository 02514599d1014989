"""Direct preference optimization with TRL and LoRA. Lines with `# +` are added for WeightLoRA.

python examples/dpo.py MODEL data.jsonl out    (each line has "prompt", "chosen" and "rejected")
"""

import sys

import torch
from datasets import load_dataset
from peft import LoraConfig
from trl import DPOConfig, DPOTrainer

from weightlora import WeightLoraCallback, WeightLoraConfig  # +

model_id, data, output_dir = sys.argv[1:4]
steps = int(sys.argv[4]) if len(sys.argv) > 4 else 1000

trainer = DPOTrainer(
    model=model_id,
    args=DPOConfig(output_dir, max_steps=steps, learning_rate=5e-5, report_to="none", bf16=torch.cuda.is_available()),
    train_dataset=load_dataset("json", data_files=data, split="train"),
    peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
    callbacks=[WeightLoraCallback(WeightLoraConfig(keep_parameters=0.25))],  # +
)
trainer.train()
trainer.save_model(output_dir)
