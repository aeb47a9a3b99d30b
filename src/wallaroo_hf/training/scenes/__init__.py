"""The built-in checkpoint's recipe, from nothing to a checkpoint, on the scenes."""
