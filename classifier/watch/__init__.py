"""A model that watches a video, a camera or a folder, and raises alerts by rules."""
