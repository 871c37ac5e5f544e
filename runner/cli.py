"""The command line: the first word chooses, and only what that word needs is imported."""

import atexit
import gc
import io
import os
import sys
import traceback
from collections.abc import Sequence

from runner.commands.registry import COMMANDS, main_of
from runner.errors import UserError, unknown

EPILOGUE = """\
STORE is a folder written by `runner sweep`; the newest under outputs/ if left out.
`runner COMMAND --help` shows the options of a command, with examples."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 cells failed or missing, 2 the user's mistake.

    Args:
        argv: Words after ``runner``; those of the process by default.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        # At exit Python looks through all objects for cycles: up to a second once torch is loaded.
        atexit.register(gc.freeze)
    for stream in (sys.stdout, sys.stderr):  # under an ASCII locale a name is shown escaped, not refused
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if words and words[0] in ("-sc", "--shell-completion"):
        if _complete():
            return 0
        words.insert(0, "sweep")  # Hydra's completion calls the bare program
    if words[:1] == ["sweep"]:
        try:
            code = main_of("sweep")(words[1:])
            sys.stdout.flush()
            return code
        except BrokenPipeError:
            _leave_unread()
            return 0 if "--dry-run" in words else 1  # of a sweep it is not known how far it came
        except KeyboardInterrupt:  # while it is imported; later it ends in order by itself
            return 130
    debug = "--debug" in words
    try:
        code = _dispatch([word for word in words if word != "--debug"])
        sys.stdout.flush()
        return code
    except UserError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        _leave_unread()
        return 0
    except KeyboardInterrupt:
        return 130


def _leave_unread() -> None:
    """Keep the interpreter from complaining at exit: the reader, `head` say, has seen enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dispatch(words: list[str]) -> int:
    """Run the command that the first word names."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if words[0] in ("-V", "--version"):
        from runner.version import __version__

        print(f"runner {__version__}")
        return 0
    if words[0] not in COMMANDS:
        raise unknown("command", words[0], COMMANDS)
    return main_of(words[0])(words[1:])


def _overview() -> str:
    lines = ["usage: runner COMMAND ...", "", "Phase diagrams of lazy and feature-learning training.", ""]
    lines += [f"  {f'{word} {usage}':<20}{meaning}" for word, (usage, meaning) in COMMANDS.items()]
    return "\n".join([*lines, "", EPILOGUE])


def _complete() -> bool:
    """Complete the command itself; for the words after ``sweep``, hide that word from Hydra.

    Hydra's completion knows an app and its overrides, but no word in between. Returns whether all is done.
    """
    line = os.environ.get("COMP_LINE")
    if line is None:
        return False
    program, _, rest = line.lstrip().partition(" ")
    word, space, after = rest.lstrip().partition(" ")
    if word == "sweep" and space:
        os.environ["COMP_LINE"] = f"{program} {after}"
        return False
    if not space:
        print(" ".join(command for command in COMMANDS if command.startswith(word)))
    return True


if __name__ == "__main__":
    sys.exit(main())
