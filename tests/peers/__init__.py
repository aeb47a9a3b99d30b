"""What transformers checks of every model, checked of ours and of stock Qwen2.5-VL with the same weights."""
