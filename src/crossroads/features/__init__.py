"""Features of the frozen part of a network: computed once, cached on disk, and shared by runs."""
