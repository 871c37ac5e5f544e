"""What several processes do to a store at once; imports little, for each of them starts anew."""

from runner import store


def write_and_compact(folder, parts, start):
    """Write parts of the table ``cells``, by name, and compact after each."""
    start.wait()
    for name, rows in parts.items():
        store.write_part(folder, "cells", rows, name)
        store.compact(folder)
