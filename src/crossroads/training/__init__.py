"""The phases that a strategy plans, carried out."""
