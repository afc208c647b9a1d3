"""Draws tables and figures from recorded results."""
