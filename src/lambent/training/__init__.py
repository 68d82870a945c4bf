"""The training loop and what it is made of: steps, optimisers, schedules, monitors and recorders."""
