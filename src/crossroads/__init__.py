"""Labelled images in, a tested classifier out."""
