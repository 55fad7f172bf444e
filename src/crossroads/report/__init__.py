"""How results, notes and progress are shown."""
