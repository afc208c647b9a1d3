"""The hot loops on a CPU in C++: our own implementation of some of PyTorch's operations."""
