"""Reads bytes safely from files, archives and byte ranges, and from pickles without running anything in them."""
