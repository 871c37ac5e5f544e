"""Vega as one script, so that pages and notebooks need no network: bundled once on a machine, then kept."""

import gzip
import hashlib
import zlib
from contextlib import suppress
from functools import cache
from importlib.metadata import version

from runner.errors import UserError
from runner.numerics.processor import cache_folder
from runner.store.files import atomic


@cache
def packed_vega(exported: str) -> bytes:
    """Return Vega, Vega-Lite and what embeds them, as a script packed by gzip.

    Args:
        exported: Script that gives them names in the window, ``window.embed = vegaEmbed;``.
    """
    key = f"{version('vl-convert-python')}\n{exported}"
    path = cache_folder() / f"vega-{hashlib.sha256(key.encode()).hexdigest()[:16]}.js.gz"
    # A file that a power cut has emptied or cut short is no script; gzip ends with a checksum.
    with suppress(OSError, EOFError, zlib.error):
        packed = path.read_bytes()
        if gzip.decompress(packed):
            return packed
    import vl_convert  # its first use starts an engine of JavaScript

    packed = gzip.compress(vl_convert.javascript_bundle(exported).encode(), mtime=0)
    with suppress(OSError, UserError), atomic(path, durable=False) as file:  # then it is bundled each time
        file.write(packed)
    return packed


def vega(exported: str) -> str:
    """Return the script of :func:`packed_vega` as text."""
    return gzip.decompress(packed_vega(exported)).decode()
