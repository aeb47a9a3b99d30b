"""Images and text to tensors, and back."""
