"""Files that are whole or absent: atomic local writes, URIs, buckets, and a mirror of a run."""
