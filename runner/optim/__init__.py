"""Optimizers over ensembles, with one learning rate per cell and parameter."""

from runner.optim.adam import Adam, AdamW
from runner.optim.base import Optimizer, Slot
from runner.optim.sgd import SGD
from runner.optim.signsgd import SignSGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "SignSGD", "Slot"]
