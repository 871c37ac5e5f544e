"""Models of a user's own that misbehave, in one cell or when there are too many; and sweeps to kill."""

import contextlib
import os
import random
import sys

import torch

from runner.models import MLP

FAR = 30.0


class Faulty(MLP):
    """A multilayer perceptron with a fault where a cell's outputs are far out, as a large lr makes them."""

    def __init__(self, *args, fault, **settings):
        super().__init__(*args, **settings)
        self.fault = fault

    def forward(self, x):
        z = super().forward(x)
        far = z.detach().abs().amax((1, 2)) > FAR
        if self.fault == "raise" and far.any():
            raise ValueError("a bug of the user's model")
        if self.fault == "memory" and z.shape[0] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        if self.fault.startswith("make_"):
            z = torch.where(far[:, None, None], float(self.fault.removeprefix("make_")), z)
        return z


def sweep(arguments, log, barrier=None):
    """What a process runs: the command without figures, leaving the parts as they were written."""
    import runner.store
    from runner.commands import sweep
    from runner.views import summary

    runner.store.compact = lambda store: None
    summary.print_launch_summary = lambda *_: None
    with open(log, "a") as file, contextlib.redirect_stderr(file), contextlib.redirect_stdout(file):  # noqa: PTH123
        if barrier is not None:
            barrier.wait()
        sys.exit(sweep.main(arguments))


def random_moment(seed, most):
    """A moment to kill a process at."""
    return random.Random(seed).uniform(0, most)


def can_mount():
    """Whether a file system of one's own can be mounted here."""
    return os.geteuid() == 0 and os.path.exists("/proc/filesystems")  # noqa: PTH110
