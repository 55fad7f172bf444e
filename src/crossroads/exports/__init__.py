"""Exports the classifier of an artifact for other runtimes, and compares each file with the artifact before it is handed over."""
