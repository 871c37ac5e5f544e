"""The sweeper: overrides -> cells -> launch -> jobs of whatever launcher is configured.

No dataclass in this module: together with the annotations import it would crash Hydra's plugin scan.
"""

from __future__ import annotations

import copy
import io
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.plugins import Plugins
from hydra.core.utils import configure_log, run_job
from hydra.plugins.sweeper import Sweeper
from hydra.utils import get_class
from omegaconf import DictConfig, open_dict, read_write

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from hydra.plugins.launcher import Launcher
    from hydra.types import HydraContext, TaskFunction

    from runner.grid.cells import Cells
    from runner.launching.launch import Launched
    from runner.launching.refine import Refinement

_FEW_CELLS = 16
"""So few cells rarely need a second process."""
_LONG_SECONDS = 20.0
"""From which on it is said how long a sweep will take."""

ConfigStore.instance().store(
    group="hydra/sweeper",
    name="runner_grid",
    provider="regime-runner",
    node={
        "_target_": "hydra_plugins.runner_grid.grid_sweeper.GridSweeper",
        "params": {},
        "grids": [],
        "zip": None,
        "dry_run": False,
        "note": None,
        "summary": True,
    },
)


class GridSweeper(Sweeper):
    """Runs the grid that ``params``, ``grids`` and the command line span.

    Args:
        params: Axes and values by key, in Hydra's sweep syntax, e.g. ``{width: "64,256"}``.
        grids: Several such maps, each laid over ``params``; the cells are the union of their grids.
        zip: Keys whose axes run together instead of spanning a product: a list, or several lists.
        dry_run: Whether to say only what the grid will take.
        note: Said before training starts.
        summary: Whether to show and draw the diagram at the end.
    """

    config: DictConfig
    hydra_context: HydraContext
    task_function: TaskFunction
    launcher: Launcher

    def __init__(
        self,
        params: Mapping[str, Any] | None = None,
        grids: Sequence[Mapping[str, Any]] | None = None,
        zip: Sequence[Any] | None = None,
        dry_run: bool = False,
        note: str | None = None,
        summary: bool = True,
    ) -> None:
        from hydra_plugins.runner_grid.composition import container

        super().__init__()
        self.params: dict[str, Any] = container(params or {})
        self.grids: list[dict[str, Any]] = container(grids or [{}])
        self.zip: list[Any] = container(zip or [])
        self.note, self.dry_run, self.summary = note, dry_run, summary

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives; the launcher is made when the launch has its folder."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        """Run what is missing of the grid that these overrides change, and show the diagram.

        Raises:
            UserError: For a mistake in the grid, before anything is written.
            SweepIncompleteError: If cells failed or jobs did not finish.
            SweepInterrupted: On Ctrl-C.
            SystemExit: On another signal to stop.
        """
        from hydra_plugins.runner_grid import composition

        from runner.grid.config import check_execution
        from runner.launching import refine
        from runner.launching.launch import progress_of, unfinished
        from runner.launching.workers import cores, warm_up

        loader = self.hydra_context.config_loader
        master = composition.plain(self.config)
        check_execution(master)
        how = refine.Refinement.read(master.get("refine") or {})
        self._check_launcher(master, refines=how is not None)
        cells = composition.cells_of(loader, self.config, self.params, self.grids, arguments, self.zip)
        if self._runs_here() and len(cells) > _FEW_CELLS and cores() > 1 and not self.dry_run:
            warm_up()
        store = Path(master["store"]).expanduser().absolute()
        snapshot = {
            **master,
            "store": str(store),
            "sweep": {
                "overrides": list(arguments),
                "params": self.params,
                "grids": self.grids,
                "zip": self.zip,
            },
        }
        if how is not None:
            ties = [
                group
                for one in (self.zip, *(grid.get("zip") for grid in self.grids))
                for group in composition.ties(one)
            ]
            refine.check(how, cells, ties)
        if self.dry_run:
            launched = self._launch(cells, snapshot, store)
            print("\n".join(launched.forecast.lines() if launched.forecast else ()))
            if how is not None:
                print(refine.outlook(how))
        elif how is None:
            launched = self._launch(cells, snapshot, store)
            if launched.shards and not master["wait"]:
                print(f"queued; `runner status {store}` says how far it is", file=sys.stderr)
            elif master["shard"] is None or not unfinished(store, launched.launch)[0]:
                self._finish(launched, store)
            else:
                print(f"shard {master['shard']} has ended: {progress_of(launched, store)}", file=sys.stderr)
        else:
            with refine.alone(store):
                self._refine(cells, snapshot, store, how)

    def _refine(self, grid: Cells, snapshot: Mapping[str, Any], store: Path, how: Refinement) -> None:
        """Run the rounds of a refinement; one of which every cell is finished takes no launch."""
        from runner.launching import refine
        from runner.launching.launch import is_finished, unfinished
        from runner.store import load

        rounds = refine.Rounds(how, grid)
        launched = None
        while True:
            if rounds.ended or not is_finished(store, rounds.cells, snapshot["retry"]):
                if rounds.ended and launched and launched.total == len(rounds.cells):
                    break
                if rounds.number > 1 and not rounds.ended:
                    print(rounds.announcement(), file=sys.stderr)
                launched = self._launch(rounds.cells, snapshot, store, {"refine": rounds.record()})
                if rounds.ended or unfinished(store, launched.launch)[0]:
                    break
            rounds.go_on(load(store))
        if rounds.ended:
            print(rounds.verdict(), file=sys.stderr)
        self._finish(launched, store)

    def _launch(
        self, cells: Cells, snapshot: Mapping[str, Any], store: Path, about: Mapping[str, Any] | None = None
    ) -> Launched:
        """Record a launch of these cells and run its jobs; in a dry run neither.

        Args:
            about: Further entries of its record.
        """
        from runner.launching.launch import launch

        launched = launch(
            cells,
            snapshot,
            store,
            default_shards=1 if self._runs_here() else None,
            command=shlex.join(["runner", "sweep", *_typed(sys.argv[1:])]),
            record=not self.dry_run,
            about=about,
        )
        if self.note:
            print(self.note)
            self.note = None
        if not self.dry_run:
            self._say(launched, store)
            if launched.shards:
                self._run_jobs(launched, store, snapshot["shard"])
        return launched

    def _runs_here(self) -> bool:
        """Tell whether the launcher is Hydra's own, which runs one job after another in this process."""
        return str(self.config.hydra.runtime.choices["hydra/launcher"]) == "basic"

    def _check_launcher(self, config: Mapping[str, Any], refines: bool) -> None:
        from runner.errors import UserError

        launcher = self.config.hydra.launcher
        if check := getattr(get_class(launcher._target_), "check", None):
            check()
        if not config["wait"] and "wait" not in launcher:
            raise UserError(
                "wait must be true with a launcher that cannot leave its jobs alone, got false; "
                "use hydra/launcher=slurm"
            )
        if config["shard"] is not None and not self._runs_here():
            raise UserError(
                f"shard must be null with a launcher, got {config['shard']}; drop hydra/launcher or shard"
            )

        for key, needed in (("wait", True), ("shard", None), ("retry", (None, "failed"))):
            fits = config[key] in needed if isinstance(needed, tuple) else config[key] == needed
            if refines and not fits:
                words = {"wait": "true", "shard": "null", "retry": "null or failed"}[key]
                raise UserError(
                    f"{key} must be {words} in a sweep that refines, got {config[key]}; "
                    "each round follows from the results of those before it"
                )

    @staticmethod
    def _say(launched: Launched, store: Path) -> None:
        for line in launched.notes:
            print(f"note: {line}", file=sys.stderr)
        done = launched.total - launched.missing
        if not launched.missing:
            print(f"all {launched.total} cells are finished already, nothing to train", file=sys.stderr)
        elif done:
            print(f"{done} of {launched.total} cells are finished already", file=sys.stderr)
        if launched.forecast and launched.forecast.seconds > _LONG_SECONDS:
            print(f"{launched.forecast.time()}; --dry-run says more", file=sys.stderr)
        if launched.forecast and launched.forecast.outputs:
            print(f"outputs are kept: {launched.forecast.kept()}", file=sys.stderr)
        if launched.shards > 1:
            print(
                f"{launched.missing} cells in {launched.shards} jobs, launch {launched.launch} in {store}",
                file=sys.stderr,
            )

    def _run_jobs(self, launched: Launched, store: Path, shard: int | None) -> None:
        """Hand the launcher one job per shard, or only the shard asked for, and wait for them."""
        from runner.launching.launch import SweepInterrupted, progress_of

        with read_write(self.config), open_dict(self.config):
            self.config.store = str(store)
            self.config.launch = launched.launch
            self.config.hydra.sweep.dir = str(store / "launches" / launched.launch)
        shards = [shard] if shard is not None else range(launched.shards)
        try:
            here = self._runs_here()
            for result in self._here(shards) if here else self._launched(launched, store, shards):
                # It raises what the job raised, after a line of all overrides, which the user knows.
                with redirect_stderr(io.StringIO()):
                    _ = result.return_value
        except KeyboardInterrupt:
            raise SweepInterrupted(f"interrupted: {progress_of(launched, store)}") from None
        except (Exception, SystemExit):
            print(progress_of(launched, store), file=sys.stderr)
            raise

    def _launched(self, launched: Launched, store: Path, shards: Sequence[int]) -> Sequence[JobReturn]:
        """Have the launcher run the jobs."""
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context, task_function=self.task_function, config=self.config
        )
        # Jobs get no override but these: everything else comes from the launch's config.yaml.
        common = [f"store={_quoted(str(store))}", f"launch={_quoted(launched.launch)}"]
        return self.launcher.launch([[*common, f"shard={number}"] for number in shards], initial_job_idx=0)

    def _here(self, shards: Sequence[int]) -> list[JobReturn]:
        """Run the jobs one after another, as Hydra's own launcher does, which composes a config for each.

        Jobs read three keys of theirs, and two are in the config already.
        """
        results = []
        for place, number in enumerate(shards):
            config = copy.deepcopy(self.config)
            with read_write(config), open_dict(config):
                config.shard = number
                config.hydra.job.id = config.hydra.job.num = place
            results.append(
                run_job(
                    hydra_context=self.hydra_context,
                    task_function=self.task_function,
                    config=config,
                    job_dir_key="hydra.sweep.dir",
                    job_subdir_key="hydra.sweep.subdir",
                )
            )
            configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        return results

    def _finish(self, launched: Launched, store: Path) -> None:
        """Compact the tables, show the diagram and say what went wrong."""
        from runner.errors import UserError
        from runner.launching.launch import SweepIncompleteError, unfinished
        from runner.store import compact
        from runner.views.summary import print_launch_summary

        try:
            compact(store)
        except UserError as error:  # no result is lost, and the next launch compacts again
            print(f"note: the tables stay in parts: {error}", file=sys.stderr)
        if self.summary:
            print_launch_summary(store, launched.launch)
        missing, failed = unfinished(store, launched.launch)
        if missing:
            raise SweepIncompleteError(
                f"{missing} of {launched.total} cells did not finish; the same command runs them"
            )
        if failed:
            raise SweepIncompleteError(
                f"{failed} of {launched.total} cells failed; `runner status {store}` shows why, "
                "the same command with retry=failed trains them again"
            )


def _typed(words: Sequence[str]) -> Iterator[str]:
    """Return the command line without what the command added to it."""
    for word in words:
        if word != "--multirun" and not word.startswith(("hydra.sweeper.note=", "hydra.sweeper.summary=")):
            yield re.sub(r"^([^=]+)=choice\((.*)\)$", r"\1=\2", word)


def _quoted(text: str) -> str:
    """Write a value for Hydra's override grammar."""
    return QuotedString(text, Quote.single).with_quotes()
