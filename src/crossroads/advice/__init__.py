"""Recommends a strategy for a set of images. The recommendation rests on evidence that is measured on cached features."""
