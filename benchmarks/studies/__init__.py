"""The paper's two side studies: the memory of a training step, and the alignment of adapters with the gradient."""
