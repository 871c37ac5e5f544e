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
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from runner.commands.complaints import from_hydra, rewrite
from runner.errors import UserError, printable, unknown
from runner.grid.axes import expand_logspace
from runner.grid.config import GROUPS, conf_dir
from runner.grid.instantiate import see_working_directory
from runner.grid.rules import UNNAMED_KEYS
from runner.store.launches import read_launch
from runner.views.progress import make_progress

DEFAULT_EXPERIMENT = "default"
NOTE = "hydra.sweeper.note"
SWEEPER = "runner_grid"
_SHOWING = ("--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i", "--version")
_FLAGS_WITH_VALUE = (
    "--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p", "--cfg", "-c",
)  # fmt: skip
_COMPLETION = ("--shell-completion", "-sc")
_DRY = "--dry-run"
_KINDS_OF_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
_FLAGS = (
    *_SHOWING,
    *_FLAGS_WITH_VALUE,
    _DRY,
    "--shell-completion",
    "--multirun",
    "-m",
    "--resolve",
    "--debug",
)


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
    except BrokenPipeError:  # the reader of what is printed has seen enough: as of any command
        raise
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
    from runner.launching.launch import run_shard  # with torch, which a word of help need not wait for

    see_working_directory()
    progress = make_progress(shard, read_launch(Path(store), launch)["shards"])
    run_shard(Path(store), launch, shard, progress)


def _run(arguments: list[str]) -> int:
    for argument in arguments:
        if not argument.isprintable() and any("\udc80" <= letter <= "\udcff" for letter in argument):
            raise UserError(
                f"arguments must be in the encoding of the locale, got {printable(argument)}; "
                "set a UTF-8 locale, or PYTHONUTF8=1"
            )
    if any(argument in _COMPLETION for argument in arguments):
        return _call_hydra([*_folders_being_typed(), *arguments])
    flags, overrides = _flags_and_overrides(arguments)
    overrides = [_normalized(override) for override in overrides]
    if any(flag.partition("=")[0] in _SHOWING for flag in flags):
        return _call_hydra([*flags, *_without_axes(overrides)])
    overrides = [_of_its_group(override) for override in _with_default_experiment(overrides)]
    dry = ["hydra.sweeper.dry_run=true"] if _DRY in flags else []
    flags = [flag for flag in flags if flag != _DRY]
    # Hydra's command line guesses the mode by composing, and guesses wrong when composing fails.
    return _call_hydra([*flags, *overrides, *dry, "--multirun"], plain=not flags)


def _call_hydra(line: list[str], plain: bool = False) -> int:
    """Run Hydra with a command line; one that is ``plain`` holds overrides of a sweep and nothing else."""
    with _environment(["runner", *line]):
        see_working_directory()
        try:
            if plain:
                _multirun(line[:-1])
            else:
                hydra.main(config_path=str(conf_dir()), config_name="config", version_base="1.3")(run_job)()
        except SystemExit as leaving:
            return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    return 0


def _multirun(overrides: list[str]) -> None:
    """Run a sweep as Hydra's command line does, which composes the config once more before, for its mode."""
    with initialize_config_dir(config_dir=str(conf_dir()), job_name="runner", version_base="1.3"):
        loaded = GlobalHydra.instance().hydra
        assert loaded is not None, "just initialized"
        loaded.multirun(config_name="config", task_function=run_job, overrides=overrides)


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


# -- the command line --------------------------------------------------------------------------------


def _flags_and_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell flags and their values from overrides, which Hydra's parser takes only as one run.

    Raises:
        UserError: There is no such flag, or it lacks its value.
    """
    flags: list[str] = []
    overrides: list[str] = []
    left = iter(arguments)
    for argument in left:
        if flags and flags[-1] in ("--info", "-i") and argument in _KINDS_OF_INFO:
            flags[-1] += f"={argument}"
            continue
        if not argument.startswith("-"):
            overrides.append(argument)
            continue
        name, equals, _ = argument.partition("=")
        if name not in _FLAGS:
            raise unknown("flag", name, {flag for flag in _FLAGS if flag.startswith("--")})
        if name in ("--multirun", "-m"):
            continue
        flags.append(argument)
        if name in _FLAGS_WITH_VALUE and not equals:
            value = next(left, None)
            if value is None:
                raise UserError(f"{name} must be followed by its value, got nothing; see --help")
            flags.append(value)
    return [f"{flag}=all" if flag in ("--info", "-i") else flag for flag in flags], overrides


def _normalized(argument: str) -> str:
    """Expand logspace, which Hydra does not know, and spare people the names of what is the sweeper's."""
    key, equals, value = argument.partition("=")
    if not equals:
        return argument
    if key.lstrip("+") == "hydra/sweeper" and value != SWEEPER:
        raise UserError(f"hydra/sweeper must be {SWEEPER}, got {value}; leave it out")
    if key == "zip":  # a list of keys, or several lists
        return f"hydra.sweeper.zip={value if value.startswith('[[') else f'[{value}]'}"
    prefix = "+" if key == "experiment" else "++" if key in UNNAMED_KEYS else ""
    return f"{prefix}{key}={expand_logspace(key.lstrip('+~'), value)}"


def _with_default_experiment(overrides: list[str]) -> list[str]:
    """Add the default grid where there is neither an experiment nor an axis nor a key of that grid."""
    content = yaml.safe_load((conf_dir() / "experiment" / f"{DEFAULT_EXPERIMENT}.yaml").read_text("utf-8"))
    params = content["hydra"]["sweeper"]["params"]
    own = {"experiment", *params}
    for argument in overrides:
        key = re.split(r"[=.@]", argument.lstrip("+~"), maxsplit=1)[0]
        if key in own or argument.lstrip("+~").startswith("hydra.sweeper") or _sweeps(argument):
            return overrides
    axes = ", ".join(f"{key}={value}" for key, value in params.items())
    note = f"no axis given: the default grid, +experiment={DEFAULT_EXPERIMENT} ({axes})"
    added = [f"+experiment={DEFAULT_EXPERIMENT}", f'{NOTE}="{note}"']
    return [*overrides, *added]


def _sweeps(argument: str) -> bool:
    """Return whether an override is an axis; what cannot be read is left for Hydra to refuse."""
    if "=" not in argument:
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
    composed = value[0] in "[{" or "${" in value  # which only Hydra can read
    return argument if composed else f"{key}=choice({value})"


def _without_axes(overrides: list[str]) -> list[str]:
    """Drop the axes: what Hydra shows is one config, without any."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    axes = [text for text, override in zip(overrides, parsed, strict=True) if override.is_sweep_override()]
    if axes:
        print(f"without the axes {' '.join(axes)}:", file=sys.stderr)
    return [override for override in overrides if override not in axes]


def _folders_being_typed() -> list[str]:
    """Return the --config-dir of the line that a shell wants completed, and leave only overrides in it."""
    line = os.environ.get("COMP_LINE")
    if line is None:
        return []
    program, *words = line.split(" ")
    flags: list[str] = []
    overrides: list[str] = []
    for word in (left := iter(words)):
        name, equals, _ = word.partition("=")
        if not word.startswith("-"):
            overrides.append(word)
            continue
        value = [next(left, "")] if name in _FLAGS_WITH_VALUE and not equals else []
        flags += [word, *value] if name in ("--config-dir", "-cd") else []
    os.environ["COMP_LINE"] = " ".join([program, *overrides])
    return flags


# -- errors ------------------------------------------------------------------------------------------


def _explain(error: Exception) -> tuple[str | None, int]:
    """Return one line for what went wrong and the exit code; no line for what is our own mistake."""
    if isinstance(error, UserError):
        return _one_line(error), 2
    if isinstance(error, (HydraException, OmegaConfBaseException)) or from_hydra(error):
        return printable(rewrite(error)), 2
    from runner.launching.launch import SweepIncompleteError  # not sooner: a typo need not wait for torch

    return (_one_line(error) if isinstance(error, SweepIncompleteError) else None), 1


def _one_line(error: object) -> str:
    return printable(" ".join(str(error).split()))
