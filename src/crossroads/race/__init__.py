"""What was advised, tried within a budget; the best on validation is kept."""
