"""Watchers for tests."""

from crossroads.progress import Silent


class Notes(Silent):
    """Keeps what it is told."""

    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)
