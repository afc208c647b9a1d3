"""A module for each sort of figure, and their registry."""
