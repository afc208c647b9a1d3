"""Trains a run, from images to averaged weights."""
