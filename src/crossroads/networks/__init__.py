"""Backbones and the networks built from them."""
