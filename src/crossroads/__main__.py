"""Runs the command line as ``python -m crossroads``."""

from crossroads.cli import main

main()
