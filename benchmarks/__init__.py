"""Measurements of how fast the code is, side by side with a baseline in the same run."""
