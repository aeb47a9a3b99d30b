"""From the authors' released files of Show-o2 to a folder that transformers loads."""
