"""Data set audit: scan the images, check them, list the findings."""
