"""Runs the phases that a strategy plans."""
