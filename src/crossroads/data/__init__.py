"""Labelled images in: readers, images, audit, splits."""
