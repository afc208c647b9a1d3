"""A run, from images to averaged weights."""
