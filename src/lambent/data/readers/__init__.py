"""Readers of data sources, one format a file: arrays, CSV, Parquet, IDX, images, text and the bundled digits."""
