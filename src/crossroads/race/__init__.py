"""Trains the recommended candidates within a budget and keeps the best one on validation."""
