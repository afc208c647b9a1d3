"""The paths of all files, and how files are written and read."""
