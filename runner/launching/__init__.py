"""One launch of a sweep: shards, workers, writing, and training a cell again."""
