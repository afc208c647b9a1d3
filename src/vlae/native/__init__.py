"""The hot loops on a CPU, in C++: an own implementation of what PyTorch's operations compute."""
