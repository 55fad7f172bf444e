"""Shows results, notes and progress."""
