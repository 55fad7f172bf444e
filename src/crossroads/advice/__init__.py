"""Recommends a strategy for a set of images. The recommendation is based on evidence that is measured on cached features."""
