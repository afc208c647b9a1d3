"""Derives every random number from (seed, purpose, index), so that no generator state is saved.

Each step, epoch or image has its own generator. The numbers therefore do not depend on whether a
run was resumed, on the number of shards or on the batches of an evaluation.
"""

import hashlib

import torch


def generator(seed: int, purpose: str, index: int = 0, device: str = "cpu") -> torch.Generator:
    """Return the generator for one purpose and one step, epoch, image, …"""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)
