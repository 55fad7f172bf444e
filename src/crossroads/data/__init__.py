"""Reads, decodes, audits and splits labelled images."""
