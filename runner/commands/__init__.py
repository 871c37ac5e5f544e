"""The commands that read a store: each module has ``run`` and ``parser_of``, and imports little until run."""
