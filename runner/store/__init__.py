"""The store: a folder that accumulates cells over launches.

::

    outputs/<name>/
      sweep.yaml            what the newest launch asked for, and the history (runner.store.launches)
      launches/<id>/        plan, config, heartbeats and errors of one launch (runner.store.launches)
      cells/part-*.parquet  one row per cell
      trace/part-*.parquet  one row per cell and measured step
      layers/part-*.parquet one row per cell, measured step and layer

The tables alone say which cells are finished: a cell is, once its row is in ``cells``. Each process only
adds parts (:mod:`runner.store.parts`), so that any number of them can write to one store.
"""

from runner.store.parts import read_table, write_part
from runner.store.settled import Settled, finished
from runner.store.tables import Store, check_writable, compact, default_store, load

__all__ = [
    "Settled",
    "Store",
    "check_writable",
    "compact",
    "default_store",
    "finished",
    "load",
    "read_table",
    "write_part",
]
