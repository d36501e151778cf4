"""Process groups, CPU settings, timing, and counter-based random numbers."""
