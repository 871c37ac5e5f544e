"""``runner sweep``: Hydra's command line with errors that a person can act on."""

import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from runner.commands.complaints import from_hydra, rewrite
from runner.errors import UserError, printable
from runner.grid.axes import expand_logspace
from runner.grid.config import GROUPS, conf_dir
from runner.grid.rules import MEASURING_RULES
from runner.launching.launch import SweepIncompleteError, run_shard
from runner.store.launches import read_launch
from runner.views.progress import make_progress

DEFAULT_EXPERIMENT = "default"
NOTE = "hydra.sweeper.note"
SWEEPER = "runner_grid"
_SHOWING = ("--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i", "--version")
_FLAGS_WITH_VALUE = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p")
_COMPLETION = ("--shell-completion", "-sc")


def main(argv: Sequence[str]) -> int:
    """Run ``runner sweep`` with these arguments.

    Args:
        argv: What follows the word ``sweep``: Hydra overrides and flags, and ``--debug``.

    Returns:
        0 when every cell has a result, 1 when some failed or are missing, 2 for a user's mistake, 130 on
        Ctrl-C.
    """
    arguments = [argument for argument in argv if argument != "--debug"]
    debug = len(arguments) < len(argv)
    try:
        return _run(arguments)
    except KeyboardInterrupt as interrupt:
        print(_one_line(interrupt) or "interrupted; the same command runs what is missing", file=sys.stderr)
        return 130
    except Exception as error:
        message, code = _explain(error)
        if debug or message is None:
            traceback.print_exception(error)
        if message is not None:
            print(f"error: {message}", file=sys.stderr)
        return code


def run_job(config: DictConfig) -> None:
    """Run what a launcher's job calls; all but three keys come from the launch's record."""
    run_shard_job(str(config.store), str(config.launch), int(config.shard))


def run_shard_job(store: str, launch: str, shard: int) -> None:
    """Run one shard, showing how far it is."""
    _see_working_directory()
    progress = make_progress(shard, read_launch(Path(store), launch)["shards"])
    run_shard(Path(store), launch, shard, progress)


def _run(arguments: list[str]) -> int:
    completes = any(argument in _COMPLETION for argument in arguments)
    shows = completes or any(argument.split("=")[0] in _SHOWING for argument in arguments)
    for argument in arguments:
        key, _, value = argument.lstrip("+").partition("=")
        if key == "hydra/sweeper" and value != SWEEPER:
            raise UserError(f"hydra/sweeper must be {SWEEPER}, got {value}; leave it out")
    line = [_normalized(argument) for argument in arguments]
    if not shows:
        line = _with_default_experiment(line)
        line = [_of_its_group(argument) for argument in line]
        # Hydra guesses the mode by composing, and guesses wrong when composing fails.
        line += [] if {"--multirun", "-m"} & set(line) else ["--multirun"]
    elif not completes:
        line = _without_axes(line)
    return _call_hydra(line)


def _call_hydra(line: list[str]) -> int:

    with _environment(["runner", *line]):
        _see_working_directory()
        entry = hydra.main(config_path=str(conf_dir()), config_name="config", version_base="1.3")(run_job)
        try:
            entry()
        except SystemExit as leaving:
            return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    return 0


@contextmanager
def _environment(argv: list[str]) -> Iterator[None]:
    """Lend Hydra the command line, and have it raise its errors instead of printing them."""
    before, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = argv, "1"
    try:
        yield
    finally:
        sys.argv = before
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error


def _see_working_directory() -> None:
    """Let ``_target_: mymodels.Net`` find the user's own modules where the command is called."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


# -- the command line --------------------------------------------------------------------------------


def _normalized(argument: str) -> str:
    """Expand logspace, which Hydra does not know, and spare people the + of an experiment."""
    key, equals, value = argument.partition("=")
    if key.startswith("-") or not equals:
        return argument
    prefix = "+" if key == "experiment" else ""
    return f"{prefix}{key}={expand_logspace(key.lstrip('+~'), value)}"


def _with_default_experiment(line: list[str]) -> list[str]:
    """Add the default grid when the line names neither an experiment nor an axis nor a key of that grid."""
    content = yaml.safe_load((conf_dir() / "experiment" / f"{DEFAULT_EXPERIMENT}.yaml").read_text("utf-8"))
    params = content["hydra"]["sweeper"]["params"]
    own = {"experiment", *params}
    for argument in line:
        key = re.split(r"[=.@]", argument.lstrip("+~"), maxsplit=1)[0]
        if key in own or argument.lstrip("+~").startswith("hydra.sweeper") or _sweeps(argument):
            return line
    axes = ", ".join(f"{key}={value}" for key, value in params.items())
    note = f"no axis given: the default grid, +experiment={DEFAULT_EXPERIMENT} ({axes})"
    added = [f"+experiment={DEFAULT_EXPERIMENT}", f'{NOTE}="{note}"']
    # Beside the other overrides: Hydra's parser takes them only as one run, with flags before or after it.
    first = next((at for at, word in enumerate(line) if "=" in word and word[0] != "-"), len(line))
    return [*line[:first], *added, *line[first:]]


def _sweeps(argument: str) -> bool:
    """Return whether an override is an axis; what cannot be read is left for Hydra to refuse."""
    if argument.startswith("-") or "=" not in argument:
        return False
    try:
        return bool(OverridesParser.create().parse_override(argument).is_sweep_override())
    except HydraException:
        return False


def _of_its_group(argument: str) -> str:
    """Write a key of a group as an axis of one value: whether it exists depends on the choice of the group.

    Hydra would look for it in the default choice, whatever is swept.
    """
    key, _, value = argument.partition("=")
    group, dot, _ = key.partition(".")
    if not dot or group not in GROUPS or not value or _sweeps(argument):
        return argument
    if key in MEASURING_RULES:
        return f"++{argument}"
    composed = value[0] in "[{" or "${" in value  # which only Hydra can read
    return argument if composed else f"{key}=choice({value})"


def _without_axes(line: list[str]) -> list[str]:
    """Drop the axes: what Hydra shows is one config, without any."""
    parser = OverridesParser.create()
    kept = [argument for argument in line if argument not in {"--multirun", "-m"}]
    flags = {place + 1 for place, argument in enumerate(kept) if argument in _FLAGS_WITH_VALUE}
    overrides = [
        argument
        for place, argument in enumerate(kept)
        if place not in flags and "=" in argument and not argument.startswith("-")
    ]
    axes = [
        argument
        for argument, parsed in zip(overrides, parser.parse_overrides(overrides), strict=True)
        if parsed.is_sweep_override()
    ]
    if axes:
        print(f"without the axes {' '.join(axes)}:", file=sys.stderr)
    return [argument for argument in kept if argument not in axes]


# -- errors ------------------------------------------------------------------------------------------


def _explain(error: Exception) -> tuple[str | None, int]:
    """Return one line for what went wrong and the exit code; no line for what is our own mistake."""
    if isinstance(error, UserError):
        return _one_line(error), 2
    if isinstance(error, SweepIncompleteError):
        return _one_line(error), 1
    if isinstance(error, (HydraException, OmegaConfBaseException)) or from_hydra(error):
        return printable(rewrite(error)), 2
    return None, 1


def _one_line(error: object) -> str:
    return printable(" ".join(str(error).split()))
