"""How parameters leave the engine that trains them."""
