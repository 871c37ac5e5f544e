"""Random streams that are named, so that each part of a draw has its own."""

import hashlib

import torch


def generator(seed: int, purpose: str) -> torch.Generator:
    """Return a CPU generator whose stream is named by a seed and a purpose."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
