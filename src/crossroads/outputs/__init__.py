"""Writes the results of any number of images to one file, and continues an unfinished one."""
