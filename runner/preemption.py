"""Being told to stop: Ctrl-C, a scheduler's SIGTERM, Slurm's SIGUSR2 before a time limit or a preemption.

A signal arrives between any two instructions, where no pack can be saved. So it is only noted; training
stops at the next step, saves what it has, and then the signal does what it would have done at once.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


class Stopped(BaseException):
    """The job was told to stop and has saved what it was at; no ``except Exception`` may eat it."""


class StopRequest:
    """Whether this process was told to stop: calling it says so.

    Attributes:
        signum: The signal that said so first; None if there was none.
    """

    def __init__(self) -> None:
        self.signum: int | None = None

    def __call__(self) -> bool:
        """Return whether to stop."""
        return self.signum is not None

    def receive(self, signum: int, frame: FrameType | None = None) -> None:
        """Take note of a signal; a second Ctrl-C does not wait for the step to end."""
        if self.signum is not None and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = signum

    def obey(self) -> None:
        """Let the signal do what it would have done without us, if there was one.

        Raises:
            KeyboardInterrupt: On Ctrl-C.
            SystemExit: On another signal, after its handler was called, which requeues the job on Slurm.
        """
        if self.signum is not None:
            _deliver(self.signum)


@contextmanager
def stoppable() -> Iterator[StopRequest]:
    """Take note of signals to stop in this block instead of being ended by them."""
    stop = StopRequest()
    before = {}
    if threading.current_thread() is threading.main_thread():
        for signum in STOPPING:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                before[signum] = signal.signal(signum, stop.receive)
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _deliver(signum: int) -> NoReturn:
    if signum == signal.SIGINT:
        raise KeyboardInterrupt
    handler = signal.getsignal(signum)
    if callable(handler):
        handler(signum, None)
    raise SystemExit(128 + signum)
