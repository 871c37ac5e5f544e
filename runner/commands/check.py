"""``runner check``: is this network mu-P, and if not, which layer is to blame?

A few steps at several widths, as an ordinary sweep into a store, then the verdict: `runner status` and
`runner fit --metric update_own` read the store, and the same command again trains only what is missing.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from runner.analysis.straight import LEAST_WIDTHS
from runner.commands.command import Command
from runner.commands.options import Parser, add_figure, add_json
from runner.commands.quiet import train
from runner.commands.sweep import main as run_sweep
from runner.errors import UserError
from runner.grid.axes import expand_logspace
from runner.store import load
from runner.views.check import check
from runner.views.figures import check_figure_path
from runner.views.progress import working
from runner.views.terminal import console

OUT = Path("outputs/check")
RATES = {
    "sgd": "0.1",
    "momentum": "0.02",
    "nesterov": "0.02",
    "flow": "0.1",
    "adam": "0.01",
    "adamw": "0.01",
    "signsgd": "0.01",
    "lion": "0.01",
    "adam_atan2": "0.01",
    "muon": "0.01",
}
"""The learning rate of an optimizer where none is given: small enough for every built-in model."""
WRAPPED_RATES = {
    name: str(float(rate) / 10 if name == "sgd" else float(rate) / 5) for name, rate in RATES.items()
}
"""Those for a module of one's own, which may be one that leaves its start sooner."""
FEW_SAMPLES = {
    "digits": {"data.train_size": "32", "data.test_size": "16", "data.probe_size": "32"},
    "text": {"data.train_size": "64", "data.test_size": "16"},
}
"""Of some data sets: what scales with width does with few samples, too."""
IN_DEPTH = {"width": "128", "parameterization": "completep", "model": "resmlp"}
"""What is checked where depth is the axis, unless it is given."""
WRAPPED_SEEDS = "range(6)"
"""Seeds of a module of one's own: of many layers one has a slope with a wide interval."""
LEAST = {"width": LEAST_WIDTHS, "seed": 2}
"""Fewest values of the axes: a slope needs widths, its interval seeds."""
_OURS = ("experiment", "measure", "zip", "refine", "shard", "wait")
"""Keys that are the command's own."""


def run(options: argparse.Namespace) -> int:
    """Run ``runner check`` and return the exit code: 0 if all layers pass, 1 if not, 2 for a mistake.

    Raises:
        UserError: If an override is not for this command, or an axis has too few values.
    """
    if options.out:
        check_figure_path(options.out)
    words = sweep_words(options.overrides)
    flags = ["--config-dir", str(options.config_dir)] if options.config_dir else []
    store = store_of(options.overrides)
    if options.dry_run:
        return run_sweep([*flags, *words, f"store='{store}'", "--dry-run"])
    code = train([*flags, *words, "hydra.sweeper.summary=false"], store, "check")
    if code == 2:
        return code  # said already
    with working("judging"):
        view = check(load(store))
    if options.out:
        with working(f"drawing {options.out}"):
            view.save(options.out, options.size)
    if options.json:
        print(view.json())
    else:
        view.print(console())
        print(f"store   {store}")
        if options.out:
            print(f"figure  {options.out}, {options.out.with_suffix('.caption.txt')}")
    return max(code, int(view.asked["verdict"] != "pass"))


def sweep_words(overrides: Sequence[str]) -> list[str]:
    """Return what ``runner sweep`` is asked for: the experiment, optimizers with their rates, the overrides.

    Raises:
        UserError: If an override is not for this command, or an axis has too few values.
    """
    for word in overrides:
        key = word.lstrip("+~").partition("=")[0].partition("@")[0]
        if "=" not in word and not word.startswith("~"):
            raise UserError(f"OVERRIDES must be KEY=VALUE, got {word}; e.g. model=cnn width=32,64,128")
        if key in _OURS or key.startswith(("measure.", "hydra.sweeper")):
            raise UserError(f"{key} must be left to `runner check`, got {word}; `runner sweep` takes it")
    in_depth = len(values_of(overrides, "depth") or []) >= LEAST_WIDTHS
    if in_depth and len(values_of(overrides, "width") or []) > 1:
        raise UserError(
            "width must have a single value where depth is the axis of the check, got several; e.g. width=128"
        )
    for key, least in LEAST.items():
        values = values_of(overrides, key)
        if values is not None and len(values) < least and not (in_depth and key == "width"):
            raise UserError(
                f"{key} must have at least {least} values for a slope with its interval, got "
                f"{', '.join(values)}; e.g. {'width=64,128,256' if key == 'width' else 'seed=0,1,2'}"
            )
    words = ["+experiment=check"]
    few = dict(FEW_SAMPLES.get(",".join(values_of(overrides, "data") or ["digits"]), {}))
    if _wrapped(overrides):
        few["seed"] = WRAPPED_SEEDS
    if in_depth:
        few |= IN_DEPTH
    words += [f"{key}={value}" for key, value in few.items() if values_of(overrides, key) is None]
    rest = [word for word in overrides if word.partition("=")[0] not in ("optimizer", "lr", "store")]
    return [*words, *_optimizers(overrides), *rest]


def _optimizers(overrides: Sequence[str]) -> list[str]:
    """Return the axes of optimizers and learning rates, which run together."""
    names = values_of(overrides, "optimizer") or ["sgd", "adam"]
    rates = values_of(overrides, "lr")
    if rates is None:
        known = WRAPPED_RATES if _wrapped(overrides) else RATES
        unknown = [name for name in names if name not in known]
        if unknown:
            raise UserError(f"lr must be given for optimizer={unknown[0]}, got nothing; add lr=...")
        rates = [known[name] for name in names]
    if len(rates) == 1:
        rates *= len(names)
    if len(names) == 1:
        return [f"optimizer={names[0]}", f"lr={','.join(rates)}"]
    if len(rates) != len(names):
        raise UserError(
            f"lr must have one value, or one per optimizer ({', '.join(names)}), got {', '.join(rates)}; "
            f"e.g. lr={','.join(RATES.get(name, '0.1') for name in names)}"
        )
    return ["zip=optimizer,lr", f"optimizer={','.join(names)}", f"lr={','.join(rates)}"]


def _wrapped(overrides: Sequence[str]) -> bool:
    """Whether the network is a module of the user's own."""
    return values_of(overrides, "model") == ["torch"]


def store_of(overrides: Sequence[str]) -> Path:
    """Return the folder that an override names; ``outputs/check`` without one."""
    for word in reversed(overrides):
        key, _, value = word.partition("=")
        if key == "store":
            return Path(value.strip("'\""))
        if key == "name":
            return OUT.parent / value
    return OUT


def values_of(overrides: Sequence[str], key: str) -> list[str] | None:
    """Return the values that an axis is given; None without it, or where the sweep will refuse it."""
    for word in reversed(overrides):
        name, equals, value = word.partition("=")
        if name == key and equals:
            try:
                override = OverridesParser.create().parse_override(f"{key}={expand_logspace(key, value)}")
            except HydraException:
                return None
            if not override.is_sweep_override():
                return [value]
            return [str(one) for one in override.sweep_string_iterator()]
    return None


def _options(parser: Parser) -> None:
    parser.add_argument(
        "overrides", nargs="*", metavar="OVERRIDES",
        help="keys and axes as of `runner sweep`: the model, width=64,128,256,512,1024 seed=range(3) "
        "optimizer=sgd,adam lr=0.1,0.01 (one per optimizer) parameterization=mup steps=5 unless given",
    )  # fmt: skip
    parser.add_argument("--config-dir", type=Path, metavar="FOLDER", help="groups in a folder of yours, too")
    parser.add_argument(
        "--dry-run", action="store_true", help="say how many cells and how long; train nothing"
    )
    add_json(parser)
    add_figure(parser)


COMMAND = Command(
    "check",
    "Coordinate check: is this network mu-P? Trains a few steps at several widths and says of every layer "
    f"whether its change depends on the width, and which layer is to blame. Resumes in {OUT}.\n"
    "Exit code: 0 every layer passes, 1 some do not, 2 a mistake in the command.",
    (
        "runner check",
        "runner check model=transformer width=64,128,256 --out check.svg",
        "runner check model=torch model.module._target_=my_net.Net optimizer=adam lr=0.003",
        "runner check parameterization=ntk --json",
        "runner check depth=2,4,8,16,32 parameterization=completep,depth_mup",
    ),
    _options,
    run,
)
