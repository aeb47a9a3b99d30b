"""Files and folders as a whole, and what they say about a checkpoint before torch is imported."""
