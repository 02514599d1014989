"""The extra `lightning`: a fit with the callback."""

import lightning.pytorch as pl
from peft import PeftModel
from tiny import batch, llama, lora
from torch.optim import AdamW
from torch.utils.data import DataLoader

from weightlora import WeightLoraConfig, WeightLoraLightningCallback


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = lora()

    def training_step(self, batch, index):
        return self.model(**batch).loss

    def configure_optimizers(self):
        return AdamW([p for p in self.model.parameters() if p.requires_grad])


module, callback = Module(), WeightLoraLightningCallback(WeightLoraConfig(keep=3, select_steps=30))
trainer = pl.Trainer(max_steps=40, callbacks=[callback], accelerator="cpu", logger=False, enable_progress_bar=False)
trainer.fit(module, DataLoader([batch() for _ in range(40)], batch_size=None))
assert len(callback.selector.kept) == 3
module.model.save_pretrained("out")
PeftModel.from_pretrained(llama(), "out")
