"""Optimizers over ensembles, with one learning rate per cell and parameter."""

from runner.optim.adam import Adam, AdamAtan2, AdamW
from runner.optim.base import Optimizer, has_compiled_steps
from runner.optim.flow import Flow
from runner.optim.muon import Muon
from runner.optim.sgd import SGD
from runner.optim.signsgd import Lion, SignSGD
from runner.optim.slot import Slot

__all__ = [
    "SGD",
    "Adam",
    "AdamAtan2",
    "AdamW",
    "Flow",
    "Lion",
    "Muon",
    "Optimizer",
    "SignSGD",
    "Slot",
    "has_compiled_steps",
]
