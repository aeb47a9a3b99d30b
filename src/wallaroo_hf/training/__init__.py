"""Training: the image tokenizer."""
