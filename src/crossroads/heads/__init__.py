"""Linear heads, solved without a training framework."""
