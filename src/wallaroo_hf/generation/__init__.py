"""Drawing through transformers' own `generate()`."""
