"""What `scripts/bench.py` measures: a family of lines per file, each beside its rival."""
