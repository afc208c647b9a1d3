"""One module per raw format, and their registry."""
