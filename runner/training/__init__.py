"""From a pack of cells to its tables: the loop, its state, its checkpoints."""
