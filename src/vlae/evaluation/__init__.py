"""Numbers about a trained run: likelihoods, samples, what its codes keep."""
