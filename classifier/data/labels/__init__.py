"""Labels: the values that a data set gives its images, the names of classes, sets of labels."""
