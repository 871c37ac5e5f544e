"""What a command declares: how it is called, what it is for, its options and what it does."""

import argparse
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runner.commands.options import Parser


@dataclass(frozen=True, slots=True)
class Command(ABC):
    """A word of the command line.

    Attributes:
        usage: The word and what follows it.
        help: One line for the list of commands.
    """

    usage: str
    help: str

    @property
    def name(self) -> str:
        """The word."""
        return self.usage.partition(" ")[0]

    @abstractmethod
    def main(self, words: Sequence[str]) -> int:
        """Run the command with what follows its word; return the exit code."""


@dataclass(frozen=True, slots=True)
class Parsed(Command):
    """A command with options.

    Attributes:
        description: What it does, for its own help.
        examples: Command lines.
        options: Adds its options to a parser.
        run: From the parsed options to the exit code.
    """

    description: str
    examples: Sequence[str]
    options: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], int]

    def parser(self) -> Parser:
        """Return the parser of what follows the word."""
        parser = command_parser(self.name, self.description, self.examples)
        self.options(parser)
        return parser

    def main(self, words: Sequence[str]) -> int:
        """Parse the words and run the command."""
        return self.run(self.parser().parse_args(words))


def command_parser(name: str, description: str, examples: Sequence[str]) -> Parser:
    """Return the parser of a command, as yet without options."""
    return Parser(
        prog=f"runner {name}",
        description=description,
        epilog="\n  ".join(["examples:", *examples]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
