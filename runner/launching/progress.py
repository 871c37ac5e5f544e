"""What a shard tells whoever watches it."""

from collections.abc import Sequence

from runner.planning.packs import Pack


class Progress:
    """What a shard tells whoever watches it; this one shows nothing."""

    def begin(self, packs: Sequence[Pack], done: int, total: int) -> None:
        """Say what is to be done; ``done`` of ``total`` cells are finished already."""

    def preparing(self, text: str) -> None:
        """Say how far something is that packs wait for; an empty text once it is there."""

    def note(self, text: str) -> None:
        """Say what whoever watches should know."""

    def begin_pack(self, pack: Pack) -> None:
        """Say that a pack starts."""

    def step(self, pack: Pack, step: int, diverged: int) -> None:
        """Say how far a pack is, and how many of its cells have diverged."""

    def waiting(self, pack: Pack) -> None:
        """Say that cells are another process's for now."""

    def end_pack(self, pack: Pack, ok: int, diverged: int, failed: int) -> None:
        """Say how the cells of a pack ended."""

    def end(self) -> None:
        """Stop showing, whatever happened."""
