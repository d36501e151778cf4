"""What a path may be: folder, archive, WebDataset, Parquet, manifest, IDX, remote. `detect` picks the reader."""
