"""What a training step costs with LoRA on all modules, during the selection, and after the choice."""
