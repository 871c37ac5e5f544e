"""From cells to packs: what can train together, what it costs, what the machine holds."""
