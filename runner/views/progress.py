"""What a shard shows while it trains: a live display on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from runner.launching.progress import Progress
from runner.planning.packs import Pack, costs_by_kind

LINE_SECONDS = 5.0
"""Least time between two plain lines: a log should be read, not scrolled."""


@contextmanager
def working(what: str) -> Iterator[Callable[[str], None]]:
    """Show on a terminal that a command is at work, and let it say how far it is; elsewhere show nothing."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    with Console(stderr=True).status(what) as status:
        yield lambda text: status.update(f"{what}: {text}")


class Running(NamedTuple):
    """A pack that trains now.

    Attributes:
        pack: Pack in training.
        step: How far it is.
        diverged: Cells that have diverged so far.
        began: By the tally's clock.
    """

    pack: Pack
    step: int
    diverged: int
    began: float

    @property
    def fraction(self) -> float:
        """Share of its steps that are done."""
        return min(1.0, self.step / self.pack.cells[0].steps)

    def text(self) -> str:
        """Return the line about it."""
        cell = self.pack.cells[0]
        return (
            f"pack {self.pack.index}: {cell.model} width {cell.width} depth {cell.depth} on {cell.data}, "
            f"{len(self.pack.cells)} cells, step {self.step}/{cell.steps}"
        )


class Tally(Progress):
    """Counts cells and estimates the time left, from the packs' costs and what they took.

    A cost is an estimate; packs of one kind err alike, so each kind is corrected by those of it that have
    ended, and by all others until then; before any has, the estimates stand. That counts cells that
    diverge, too, which end early.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._due = 0.0
        self._left: dict[tuple[object, ...], float] = {}
        self._took: dict[tuple[object, ...], tuple[float, float]] = {}
        self._lanes = 1
        self._trained = 0
        self._waited = False
        self.done = 0
        self.total = 0
        self.ok = 0
        self.diverged = 0
        self.failed = 0
        self.running: dict[int, Running] = {}
        self._preparing = ""

    def begin(self, packs: Sequence[Pack], done: int, total: int) -> None:
        """Take note of the work ahead."""
        self._started = self._clock()
        self._left = costs_by_kind(packs)
        self._due = sum(self._left.values())
        self.done, self.total = done, total

    def preparing(self, text: str) -> None:
        """Take note of how far something is that packs wait for."""
        self._preparing = text
        if not text:  # the time that it took says nothing of the packs
            self._started = self._clock()

    def begin_pack(self, pack: Pack) -> None:
        """Take note of a pack that starts."""
        self.running[pack.index] = Running(pack, 0, 0, self._clock())
        self._lanes = max(self._lanes, len(self.running), pack.threads)

    def step(self, pack: Pack, step: int, diverged: int) -> None:
        """Take note of how far a pack is."""
        if pack.index not in self.running:  # the other half of a pack that was cut has ended
            self.begin_pack(pack)
        self.running[pack.index] = self.running[pack.index]._replace(step=step, diverged=diverged)

    def waiting(self, pack: Pack) -> None:
        """Say, the first time, that cells are another process's for now."""
        if not self._waited:
            self._waited = True
            self.note(
                f"note: {len(pack.cells)} cells or more are being trained by another process, which holds "
                "their lease; waiting for it to finish them or to end"
            )

    def note(self, text: str) -> None:
        """Print a line beside the progress."""
        print(text, file=sys.stderr, flush=True)

    def end_pack(self, pack: Pack, ok: int, diverged: int, failed: int) -> None:
        """Take note of how the cells of a pack ended."""
        count, kind = ok + diverged + failed, pack.cells[0].pack_key
        now = self.running.pop(pack.index, None)
        paid = pack.cost * count / len(pack.cells)  # the rest is left to others, or tried again
        self._left[kind] = max(0.0, self._left.get(kind, 0.0) - paid)
        if now and count == len(pack.cells):
            seconds, cost = self._took.get(kind, (0.0, 0.0))
            self._took[kind] = seconds + self._clock() - now.began, cost + pack.cost
        self._trained += count
        self.done += count
        self.ok += ok
        self.diverged += diverged
        self.failed += failed

    def end(self) -> None:
        """Take note that nothing trains any more."""
        self.running.clear()

    @property
    def fraction(self) -> float:
        """Share of the shard's cost that is paid, the steps of running packs included."""
        part = sum(now.pack.cost * now.fraction for now in self.running.values())
        return min(1.0, 1 - (sum(self._left.values()) - part) / self._due) if self._due else 1.0

    @property
    def cells_per_second(self) -> float:
        """Cells trained since the start, over the time since; running packs count by their steps."""
        part = sum(len(now.pack.cells) * now.fraction for now in self.running.values())
        return (self._trained + part) / max(self._clock() - self._started, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """Estimated time left; None before there is anything to go by."""
        if self.fraction < 0.005:
            return None
        pace = self._paces()
        each = [
            now.pack.cost * (1 - now.fraction) * pace(now.pack.cells[0].pack_key)
            for now in self.running.values()
        ]
        part = sum(
            now.pack.cost * now.fraction * pace(now.pack.cells[0].pack_key) for now in self.running.values()
        )
        whole = sum(cost * pace(kind) for kind, cost in self._left.items()) - part
        # A pack of many threads takes the time of all workers.
        whole += sum(
            (now.pack.threads - 1) * left for now, left in zip(self.running.values(), each, strict=True)
        )
        # Shared by all workers, but for a pack that one of them is still at when the others are idle.
        return max(0.0, whole / self._lanes, *each)

    def _paces(self) -> Callable[[tuple[object, ...]], float]:
        """Return what gives the seconds that a second of estimated cost takes, by kind."""
        known = {kind: seconds / cost for kind, (seconds, cost) in self._took.items() if cost}
        seconds, cost = (sum(column) for column in zip((0.0, 0.0), *self._took.values(), strict=True))
        usual = seconds / cost if cost else 1.0  # how far a pack is says little: its work at init is no step
        return lambda kind: known.get(kind, usual)

    def counts(self) -> str:
        """Return the line of counts."""
        left = self.seconds_left
        diverged = self.diverged + sum(now.diverged for now in self.running.values())
        return (
            f"{self.done}/{self.total} cells  {self.cells_per_second:.1f} cells/s  "
            f"{'--:--' if left is None else clock_text(left)} left  "
            f"{diverged} diverged  {self.failed} failed"
        )

    def current(self) -> list[str]:
        """Return one line for each pack that trains now."""
        packs = [now.text() for _, now in sorted(self.running.items())]
        return [self._preparing, *packs] if self._preparing else packs


def clock_text(seconds: float) -> str:
    """Return a duration as m:ss or h:mm:ss.

    >>> clock_text(75), clock_text(3675)
    ('1:15', '1:01:15')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class LineProgress(Tally):
    """Plain lines, for logs: at most one every few seconds, and one at the end."""

    def __init__(
        self,
        stream: TextIO | None = None,
        label: str = "",
        clock: Callable[[], float] = time.monotonic,
        every: float = LINE_SECONDS,
    ) -> None:
        super().__init__(clock)
        self._stream = stream or sys.stderr
        self._label = label
        self._every = every
        self._said_at = -float("inf")
        self._said = ""

    def preparing(self, text: str) -> None:
        """Say so, if the last line is old enough."""
        super().preparing(text)
        if text:
            self._say(text)

    def step(self, pack: Pack, step: int, diverged: int) -> None:
        """Say so, if the last line is old enough."""
        super().step(pack, step, diverged)
        self._say(f"{self.counts()}  ({self.running[pack.index].text()})")

    def end_pack(self, pack: Pack, ok: int, diverged: int, failed: int) -> None:
        """Say so, if the last line is old enough."""
        super().end_pack(pack, ok, diverged, failed)
        self._say(self.counts())

    def end(self) -> None:
        """Say how it ended."""
        super().end()
        self._say(self.counts(), always=True)

    def _say(self, text: str, always: bool = False) -> None:
        now = self._clock()
        if text == self._said or (not always and now - self._said_at < self._every):
            return
        self._said_at, self._said = now, text
        print(f"{self._label}{text}", file=self._stream, flush=True)


class LiveProgress(Tally):
    """A display that redraws itself, for terminals."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._live: Live | None = None

    def begin(self, packs: Sequence[Pack], done: int, total: int) -> None:
        """Start the display."""
        super().begin(packs, done, total)
        self._live = Live(
            get_renderable=self.render, console=self._console, refresh_per_second=4, transient=True
        )
        self._live.start()

    def end(self) -> None:
        """Leave one line in place of the display."""
        super().end()
        if self._live is not None:
            self._live.stop()
            self._live = None
            self._console.print(self.counts(), highlight=False)

    def note(self, text: str) -> None:
        """Print a line above the display."""
        self._console.print(text, highlight=False)

    def render(self) -> RenderableType:
        """Return the bar, the counts and the packs at work, as they are now."""
        rows = Table.grid()
        rows.add_row(ProgressBar(total=1.0, completed=self.fraction, width=min(60, self._console.width - 2)))
        rows.add_row(Text(self.counts()))
        for line in self.current():
            rows.add_row(Text(line, style="dim"))
        return rows


def make_progress(shard: int = 0, shards: int = 1, stream: TextIO | None = None) -> Tally:
    """Return the display that fits: live on a terminal that one shard has for itself, else lines."""
    console = Console(stderr=True, file=stream)
    if console.is_terminal and shards == 1:
        return LiveProgress(console)
    return LineProgress(stream, f"shard {shard}: " if shards > 1 else "")
