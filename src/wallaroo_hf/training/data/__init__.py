"""What training data is and how it is read: rows, files, mixing, streaming and encoding ahead."""
