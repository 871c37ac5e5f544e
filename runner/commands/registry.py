"""The commands that there are. What one needs is imported when it runs, so that listing them is quick."""

from runner.commands import claims, export, report, schema, status, sweep, verify
from runner.commands.command import Command
from runner.commands.pictures import PictureCommand
from runner.views.pictures import PICTURES

COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        sweep.COMMAND,
        status.COMMAND,
        *(PictureCommand(f"{name} [STORE]", help) for name, help in PICTURES.items()),
        report.COMMAND,
        export.COMMAND,
        claims.COMMAND,
        verify.COMMAND,
        schema.COMMAND,
    )
}
"""In the order of `runner --help`."""
