"""A run: its folder, the loop that every method shares, checkpoints, checks before the first iteration, results."""
