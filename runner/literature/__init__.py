"""Published figures put to the test: papers as experiments, what each found as data, and verdicts."""

from functools import partial
from pathlib import Path

from runner.analysis.claims.verdict import Claim
from runner.errors import UserError, unknown
from runner.grid.config import conf_dir, load_experiment
from runner.literature.judgement import checks
from runner.literature.paper import Paper, read_paper

__all__ = ["Paper", "as_claim", "choose_papers", "papers"]


def papers(folder: Path | None = None) -> dict[str, Paper]:
    """Return the papers, each an experiment whose YAML has a section ``paper``, by the experiment's name.

    Args:
        folder: A config folder of one's own, whose experiments come too.

    Raises:
        UserError: If an experiment is no YAML, or its section breaks a rule.
    """
    folders = [conf_dir(), *([folder] if folder else [])]
    files = [file for one in folders for file in sorted((one / "experiment").glob("*.yaml"))]
    sections = {file.stem: load_experiment(file.stem, folder).get("paper") for file in files}
    return {name: read_paper(name, section) for name, section in sections.items() if section is not None}


def choose_papers(names: tuple[str, ...], folder: Path | None = None) -> list[Paper]:
    """Return the papers of these names, in that order; all of them if none is named.

    Raises:
        UserError: As :func:`papers`, or if there is no such paper.
    """
    known = papers(folder)
    if not known:
        raise UserError("NAMES must be papers, but no experiment has a section `paper`; see conf/experiment")
    for name in names:
        if name not in known:
            raise unknown("NAMES", name, list(known))
    return [known[name] for name in names or known]


def as_claim(paper: Paper) -> Claim:
    """Return a paper as a claim whose rule reads the store of its experiment."""
    return Claim(paper.name, paper.finding, (paper.name,), partial(checks, paper))
