"""Measures the speed of the code against a baseline in the same run."""
