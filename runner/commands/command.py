"""A command with options: how it is called, what it is for, and what it does."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runner.commands.options import Parser


@dataclass(frozen=True, slots=True)
class Command:
    """A word of the command line and the options after it.

    Attributes:
        name: The word.
        description: What it does, for its own help.
        examples: Command lines.
        options: Adds its options to a parser.
        run: From the parsed options to the exit code.
    """

    name: str
    description: str
    examples: Sequence[str]
    options: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], int]

    def main(self, words: Sequence[str]) -> int:
        """Run the command with what follows its word."""
        parser = Parser(
            prog=f"runner {self.name}",
            description=self.description,
            epilog="\n  ".join(["examples:", *self.examples]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.options(parser)
        return self.run(parser.parse_args(words))
