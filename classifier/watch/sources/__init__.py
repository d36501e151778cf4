"""Where frames come from: films, live streams, cameras, folders."""
