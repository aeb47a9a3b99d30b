"""The built-in bilingual data set of flat shapes, and its exact judge."""
