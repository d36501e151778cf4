"""Manifests and lists: files that name images and their labels."""
