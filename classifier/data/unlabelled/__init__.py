"""Images without labels, beside those of the data set."""
