"""Text classification with transformers.Trainer and LoRA. The lines that end in `# +` are what WeightLoRA adds.

python examples/trainer.py MODEL data.jsonl out    (a text and a label, 0 or 1, a line)
"""

import sys

from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from weightlora import WeightLoraCallback, WeightLoraConfig  # +

model_id, data, output_dir = sys.argv[1:4]
steps = int(sys.argv[4]) if len(sys.argv) > 4 else 1000

tokenizer = AutoTokenizer.from_pretrained(model_id)
rows = load_dataset("json", data_files=data, split="train")
rows = rows.map(lambda row: tokenizer(row["text"], truncation=True, max_length=256), remove_columns="text")
rows = rows.train_test_split(test_size=0.1, seed=0)

base = AutoModelForSequenceClassification.from_pretrained(model_id, num_labels=2)
model = get_peft_model(base, LoraConfig(r=8, lora_alpha=32, target_modules="all-linear", task_type="SEQ_CLS"))
config = WeightLoraConfig(keep=0.25, select_steps=steps // 5)  # +

trainer = Trainer(
    model=model,
    args=TrainingArguments(output_dir, max_steps=steps, learning_rate=1e-3, report_to="none"),
    train_dataset=rows["train"],
    eval_dataset=rows["test"],
    data_collator=DataCollatorWithPadding(tokenizer),
    callbacks=[WeightLoraCallback(config)],  # +
)
trainer.train()
trainer.save_model(output_dir)  # plain PEFT: PeftModel.from_pretrained reads it
