"""What the frozen part of a network finds in images: computed once, kept, and shared by runs."""
