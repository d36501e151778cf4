"""Images to probabilities and features: scorer, features, explanations, out-of-distribution detection."""
