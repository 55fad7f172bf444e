"""Runs the command line, as ``crossroads`` and as ``python -m crossroads``."""

import sys

from crossroads.report.first_line import show_first_line


def main() -> None:
    """Shows that the program starts, then imports and runs the command line."""
    show_first_line(sys.argv[1:])
    from crossroads.cli import main as run

    run()


if __name__ == "__main__":
    main()
