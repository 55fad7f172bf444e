"""Runs one task: its training, its final test, its metrics and its folder."""
