"""Data sets: fetched and verified (fetch, download), parsed (formats), read back (dataset)."""
