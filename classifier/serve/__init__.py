"""A bundle as a service: HTTP in, answers out, in batches, within bounds, without Ray."""
