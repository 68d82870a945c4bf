"""Everything that is written to disk and read back: run folders, checkpoints, metrics, JSON and TOML."""
