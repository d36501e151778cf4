"""Atomic local files, URIs, buckets, and the mirror of a run folder."""
