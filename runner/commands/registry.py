"""The commands that there are. What one needs is loaded when it is called, so that listing them is quick."""

from collections.abc import Callable, Sequence
from importlib import import_module

from runner.views.pictures import PICTURES, picture_of

STORE = "[STORE]"
COMMANDS = {
    "sweep": ("[OVERRIDES]", "train a grid: runner sweep width=64,256 lr=0.1,1 parameterization=ntk,mup"),
    "status": (STORE, "how far a store is, and what failed"),
    **{name: (STORE, meaning) for name, meaning in PICTURES.items()},
    "report": (STORE, "one HTML page to look at, offline: diagram, curves, fits, provenance"),
    "export": (STORE, "the cells as CSV, or as runs for wandb, mlflow, tensorboard"),
    "claims": ("[IDS]", "the theory put to the test: 18 claims, measured, with verdicts"),
    "reproduce": ("[NAMES]", "published figures put to the test: published, measured, verdict"),
    "check": ("[OVERRIDES]", "is this network mu-P? which layer's change depends on the width, and why"),
    "theory": ("[NAME|FILE]", "what follows from a parameterization's exponents, derived, and why"),
    "verify": (STORE, "whether a store can be trusted: every byte read, and held against the plans"),
    "schema": ("[TABLE]", "every column of the tables: type, unit, meaning"),
}
"""Word, of a command and its file here, to what follows it and what it is for, in the order of the help."""


def main_of(word: str) -> Callable[[Sequence[str]], int]:
    """Return what runs a command: from the words after its own to the exit code."""
    module = import_module(f"runner.commands.{'pictures' if word in PICTURES else word}")
    # The words of a sweep are Hydra's, so that its file is no Command.
    command = module.command_of(picture_of(word)) if word in PICTURES else getattr(module, "COMMAND", module)
    main: Callable[[Sequence[str]], int] = command.main
    return main
