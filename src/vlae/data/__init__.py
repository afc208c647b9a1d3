"""Data sets: fetching and verifying (fetch, download), parsing (formats), reading (dataset)."""
