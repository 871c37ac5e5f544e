"""Libraries of networks, imported although this machine's build of torchvision may lack its operations."""

import importlib.util
import re
from pathlib import Path

import torch

_KEPT: list[torch.library.Library] = []


def prepare():
    """Declare the operations that torchvision registers shapes for, where its binaries cannot be loaded.

    A torchvision that was built for another torch than the one that is here cannot load them, and then fails
    to be imported. Its networks are plain modules of torch, and use none of them.
    """
    found = importlib.util.find_spec("torchvision")
    if _KEPT or found is None or not found.submodule_search_locations:
        return
    folder = Path(found.submodule_search_locations[0])
    try:
        for binary in folder.glob("_C*.so"):
            torch.ops.load_library(binary)
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        source = (folder / "_meta_registrations.py").read_text("utf-8")
        for name in sorted(set(re.findall(r'(?:torchvision::|register_meta\(")(\w+)', source))):
            library.define(f"{name}(Tensor x) -> Tensor")
        _KEPT.append(library)
