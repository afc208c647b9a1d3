"""Variational Lossy Autoencoder (Chen et al., ICLR 2017): the models, their training and
evaluation, and the paper's tables and figures. The pipeline around it is ../../Snakefile."""

__version__ = "0.1.0"
