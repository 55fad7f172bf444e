"""Computes the features of the frozen part of a network once, caches them on disk, and shares them between runs."""
