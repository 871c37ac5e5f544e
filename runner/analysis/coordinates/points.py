"""From the tables of a sweep to the points of a coordinate check."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from runner.analysis.columns import config_columns, distinct, facet_groups
from runner.analysis.coordinates.signature import LOGITS
from runner.analysis.coordinates.slopes import BOUND, COLUMNS, PARTS, PLACES
from runner.analysis.selection import facet_label
from runner.analysis.straight import LEAST_WIDTHS
from runner.errors import UserError
from runner.scaling.optimizers import OPTIMIZERS

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")
"""Of a block, in the name of a layer."""


@dataclass(frozen=True, slots=True)
class Group:
    """What is judged on its own.

    Attributes:
        label: Its optimizer, and what else differs between groups.
        adam: Whether updates are sign-like; None if nobody knows.
        steps: Steps that were asked for.
        points: With the columns of :data:`runner.analysis.coordinates.COLUMNS`.
        key: What their sizes are, ``width`` or ``depth``.
    """

    label: str
    adam: bool | None
    steps: int
    points: pd.DataFrame
    key: str = "width"


def groups_of(cells: pd.DataFrame, layers: pd.DataFrame) -> list[Group]:
    """Return a group per combination of the keys that vary, other than width and seed; or depth and seed.

    Args:
        cells: The chosen rows of ``cells``.
        layers: Rows of ``layers`` with the parts of the update, at every step.

    Raises:
        UserError: If the parts were not measured.
    """
    missing = [part for part in PARTS if part not in layers or layers[part].isna().all()]
    if missing:
        raise UserError(
            f"STORE must hold {', '.join(PARTS)} of its layers, got none of {', '.join(missing)}; "
            "`runner check` measures them"
        )
    key = "depth" if cells["depth"].nunique() >= LEAST_WIDTHS and cells["width"].nunique() == 1 else "width"
    found = list(_parted(cells, _facets(cells, key)))
    return [
        Group(label, _is_adam(part), int(part["steps"].max()), points, key)
        for label, part in found
        if len(points := _points(part, layers, key))
    ]


def _parted(cells: pd.DataFrame, facets: Sequence[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    for values, part in facet_groups(cells, facets):
        yield facet_label(facets, [values[facet] for facet in facets]), part


def _is_adam(cells: pd.DataFrame) -> bool | None:
    family = OPTIMIZERS.get(str(cells["optimizer"].iloc[0]))
    return None if family is None else family == "adam"


def _facets(cells: pd.DataFrame, across: str) -> list[str]:
    """Return the keys that part the cells, the optimizer last and always."""
    config = config_columns(cells)
    varying = [str(key) for key in config if key not in (across, "seed") and len(distinct(config[key])) > 1]
    groups = {key for key in varying if "." not in key}
    keys = [key for key in varying if key.partition(".")[0] not in groups - {key}]  # its settings follow
    if "optimizer" in keys and (config.groupby("optimizer", dropna=False)["lr"].nunique() == 1).all():
        keys = [key for key in keys if key != "lr"]
    return [*(key for key in keys if key != "optimizer"), "optimizer"]


def _points(cells: pd.DataFrame, layers: pd.DataFrame, key: str) -> pd.DataFrame:
    """Return the points of some cells: those at init, which do not differ from it, are none."""
    sizes = cells[["cell_id", "seed", key]].rename(columns={key: "size"})
    rows = layers[layers["step"] > 0].merge(sizes, on="cell_id")
    rows = rows.assign(role=rows["role"].astype(object), layer=rows["layer"].astype(str))
    if key == "depth":
        rows = _by_place(rows)
    points = rows.assign(**{BOUND: None})[[*COLUMNS]].astype({"layer_index": "float64", BOUND: "float64"})
    if "update_logits" not in rows or rows["update_logits"].isna().all():
        return points
    # Between the layers that make queries and keys and the one that receives what attention returns.
    logits = rows[rows["update_logits"].notna()]
    parents = logits["layer"].map(lambda name: name.rpartition(".")[0])
    logits = logits.assign(
        layer=parents + LOGITS, layer_index=logits["layer_index"] - 0.5, role=None,
        update_size=logits["update_logits"], update_own=None, update_passed=None,
    ).reindex(columns=[*COLUMNS])  # fmt: skip
    both = [points, logits.astype(dict.fromkeys(("layer_index", *PARTS, BOUND), "float64"))]
    return pd.concat(both, ignore_index=True)


def _by_place(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the layers of the first, the middle and the last block of every network, and those of none.

    Networks of several depths have these in common, ``hidden.first`` to ``hidden.last``.
    """
    of_block = rows["layer"].str.extract(f"({_NUMBER.pattern})", expand=False).astype("float64")
    blocks = of_block.groupby(rows["cell_id"]).transform("max")
    parts = []
    # As many blocks before the middle one as from there on.
    for name, place in zip(PLACES, (0 * blocks, (blocks + 1) // 2, blocks), strict=True):
        here = rows[of_block == place]
        named = here["layer"].str.replace(_NUMBER, name, n=1, regex=True)
        parts.append(here.assign(layer=named))
    alone = rows[of_block.isna()]
    found = pd.concat([alone, *parts])
    # In the order of the deepest network, whatever number a layer has in the others.
    deepest = found[found["size"] == found["size"].max()].drop_duplicates("layer")
    order = deepest.sort_values("layer_index")["layer"].tolist()
    return found.assign(layer_index=found["layer"].map({name: float(n) for n, name in enumerate(order)}))
