"""How HieraQuery is trained: its stages, its rows, and its side of the contract of training."""
