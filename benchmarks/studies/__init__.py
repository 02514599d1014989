"""Studies of a step's memory, the alignment with the gradient, budgets, the frozen prefix, and the probe's draws."""
