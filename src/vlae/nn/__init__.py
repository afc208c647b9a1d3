"""Neural building blocks: weight-normalised layers, ResNet trunks, PixelCNNs, MADE and flows."""
