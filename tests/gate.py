"""A measure at which a training waits, so that a test meets a sweep in the middle of a pack."""

import multiprocessing
import os
import select
import signal
import time
from pathlib import Path

from runner.measures.snapshot import Measurement

MEASURE = "+measure.functions.gate._target_=gate.hold"
WIDTH, STEP = 32, 100
PATIENCE = 120.0


def hold(now, start):
    """Hold a pack of narrow cells after some steps until the process is told to stop, killed, or left alone.

    Where the environment names no gate it does nothing.
    """
    folder = os.environ.get("GATE")
    if folder and now.step >= STEP and now.ensemble.cells[0].width == WIDTH:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        before = signal.set_wakeup_fd(writer)  # written to when a signal is noted, which else ends no wait
        try:
            (Path(folder) / str(os.getpid())).touch()
            parent, deadline = multiprocessing.parent_process(), time.monotonic() + PATIENCE
            while (parent is None or parent.is_alive()) and time.monotonic() < deadline:
                if select.select([reader], [], [], 0.05)[0]:
                    break
        finally:
            signal.set_wakeup_fd(before)
            os.close(reader)
            os.close(writer)
    return Measurement()


def environment(folder=None):
    """The environment of a process that finds this module, and waits if it is given a folder for its word."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]
    gate = {} if folder is None else {"GATE": str(folder)}
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **gate}


def reached(folder, process, also=lambda: True):
    """Wait until a pack is held, and for what else must be so by then, whatever the machine's speed."""
    deadline = time.monotonic() + PATIENCE / 2
    while not (list(folder.iterdir()) and also()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no pack has come to the gate"
        time.sleep(0.01)
