"""Keeps the earlier name of `crossroads.progress`, for programs that import it."""

from crossroads.progress import Silent, Watcher

__all__ = ["Silent", "Watcher"]
