"""From the authors' released files to a transformers folder."""
