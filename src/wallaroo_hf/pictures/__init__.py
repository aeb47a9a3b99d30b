"""Opening pictures as people give them, and what files may cost: what every family and every door shares."""
