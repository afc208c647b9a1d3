"""Tests never touch the training states of whoever runs them."""

import os

os.environ.pop("VLAE_SCRATCH", None)
