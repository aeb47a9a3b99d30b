"""Answering and drawing with Show-o2."""
