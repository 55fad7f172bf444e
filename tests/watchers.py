"""Watchers for tests."""

from crossroads.progress import Silent


class Notes(Silent):
    """Keeps the notes and warnings that it receives."""

    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)
