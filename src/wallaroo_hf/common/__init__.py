"""What several families share, below all of them: nothing here knows any."""
