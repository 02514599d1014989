"""Text classification with Lightning and LoRA. Lines with `# +` are added for WeightLoRA.

python examples/lightning_module.py MODEL data.jsonl out    (each line has "text", and "label": 0 or 1)
"""

import sys

import lightning.pytorch as pl
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from torch.optim import AdamW
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

from weightlora import WeightLoraConfig, WeightLoraLightningCallback  # +

model_id, data, output_dir = sys.argv[1:4]
steps = int(sys.argv[4]) if len(sys.argv) > 4 else 1000


class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        base = AutoModelForSequenceClassification.from_pretrained(model_id, num_labels=2)
        lora = LoraConfig(r=8, lora_alpha=32, target_modules="all-linear", task_type="SEQ_CLS")
        self.model = get_peft_model(base, lora).train()

    def training_step(self, batch, index):
        loss = self.model(**batch).loss
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        return AdamW([p for p in self.model.parameters() if p.requires_grad], lr=1e-3)


tokenizer = AutoTokenizer.from_pretrained(model_id)
rows = load_dataset("json", data_files=data, split="train")
rows = rows.map(lambda row: tokenizer(row["text"], truncation=True), remove_columns="text")
loader = DataLoader(rows, batch_size=16, shuffle=True, collate_fn=DataCollatorWithPadding(tokenizer))

module = Classifier()
trainer = pl.Trainer(
    max_steps=steps,
    gradient_clip_val=1.0,
    default_root_dir=f"{output_dir}-run",  # checkpoints, for trainer.fit(module, loader, ckpt_path=...)
    callbacks=[WeightLoraLightningCallback(WeightLoraConfig(keep_parameters=0.25))],  # +
)
trainer.fit(module, loader)
module.model.save_pretrained(output_dir)  # an ordinary PEFT adapter: PeftModel.from_pretrained loads it
