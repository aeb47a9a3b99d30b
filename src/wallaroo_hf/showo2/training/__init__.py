"""How Show-o2 is trained: its stages, its rows, and its side of the contract of training."""
