"""Evaluates a trained run: likelihoods, samples, and the information in its codes."""
