"""Neural building blocks: weight-normalised layers, ResNet trunk, PixelCNN, MADE and its flow."""
