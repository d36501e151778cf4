"""What a model is asked about: images and the columns beside them, checked and made ready for an engine."""
