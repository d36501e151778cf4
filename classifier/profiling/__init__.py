"""Step times, batch sizes and forecasts for more workers."""
