"""One module for each sort of figure, and the registry of figures."""
