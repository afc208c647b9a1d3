"""Compression of images with a trained model: bits-back coding (section 2 of the paper)."""
