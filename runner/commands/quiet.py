"""A sweep inside another command: its progress is shown, what it would print of its results goes to a log."""

import io
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from runner.commands.sweep import main as run_sweep
from runner.store.files import disk_errors


def train(words: Sequence[str], store: Path, title: str) -> int:
    """Train what a store lacks of a sweep and return its exit code; see :func:`runner.commands.sweep.main`.

    Args:
        words: What would follow ``runner sweep``, but for the store.
        title: What is shown above the progress.

    Raises:
        KeyboardInterrupt: On Ctrl-C.
    """
    print(f"{title}:", file=sys.stderr)
    with redirect_stdout(io.StringIO()) as said:
        # Quoted, for a path may hold what Hydra's grammar reads otherwise.
        code = run_sweep([*words, f"store='{store}'"])
    if store.is_dir():  # not if the sweep was refused
        with disk_errors(store):
            (store / "sweep.log").write_text(said.getvalue(), encoding="utf-8")
    if code == 130:
        raise KeyboardInterrupt
    return code
