"""One module per sort of table, and their registry."""
