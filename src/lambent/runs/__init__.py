"""What a user does with a run: fit, resume, encode, sample, compare and export."""
