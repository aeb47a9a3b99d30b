"""Training: rows, stages, the collator and the trainer."""
