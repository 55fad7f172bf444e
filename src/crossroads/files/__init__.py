"""Bytes in, safely: files, archives, byte ranges, and an unpickler that runs nothing."""
