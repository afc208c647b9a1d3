"""Paths of all files, and how they are written and read."""
