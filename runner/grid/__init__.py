"""What a cell is: the grid, its axes, the config, and the rules that its values follow."""
