"""One run: its task, its training, its final test, and its folder."""
