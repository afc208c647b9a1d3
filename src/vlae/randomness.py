"""Every random number follows from (seed, what for, which): nothing to carry along.

A generator is made anew for each step, epoch or image, so that a resumed run, another
number of shards or another batch of the evaluation draws the very same numbers.
"""

import hashlib

import torch


def generator(seed: int, purpose: str, index: int = 0, device: str = "cpu") -> torch.Generator:
    """A generator for one step, epoch, image … of one purpose."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)
