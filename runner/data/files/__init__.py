"""Local files of labelled images: one module per format reads a file, ``folder`` finds out which."""

from runner.data.files.folder import read

__all__ = ["read"]
