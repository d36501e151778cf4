"""Readers of data formats: folder, archive, WebDataset, Parquet, manifest, IDX, remote. `detect` picks one."""
