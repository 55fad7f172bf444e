"""Defines backbones and builds networks from them."""
