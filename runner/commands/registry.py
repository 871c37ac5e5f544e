"""The commands that there are. What one needs is imported when it runs, so that listing them is quick."""

from __future__ import annotations

from runner.commands import claims, export, report, schema, status, sweep, verify
from runner.commands.command import Command
from runner.commands.pictures import command_of
from runner.views.pictures import PICTURES

COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        sweep.COMMAND,
        status.COMMAND,
        *map(command_of, PICTURES),
        report.COMMAND,
        export.COMMAND,
        claims.COMMAND,
        verify.COMMAND,
        schema.COMMAND,
    )
}
"""In the order of `runner --help`."""
