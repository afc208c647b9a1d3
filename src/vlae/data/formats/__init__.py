"""A module for each raw format, and their registry."""
