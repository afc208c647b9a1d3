"""One module per sort of figure, and their registry."""
