"""Solves linear heads without a training framework."""
