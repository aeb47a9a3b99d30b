"""Training: stages, rows, collator, trainer and callbacks. Needs `pip install "wallaroo-hf[train]"` for data sets."""
