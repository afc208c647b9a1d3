"""A module for each sort of table, and their registry."""
