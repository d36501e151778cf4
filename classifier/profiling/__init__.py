"""What a step takes, and what more workers would bring."""
