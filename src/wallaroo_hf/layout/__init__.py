"""What a sequence looks like: strings and integers only, no torch."""
