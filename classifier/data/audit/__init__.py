"""What may be wrong with a data set: scan the images, check them, list findings."""
