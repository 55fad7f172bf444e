"""Makes the report of a run: one HTML file that contains everything it shows, and compact cards for notebooks."""
