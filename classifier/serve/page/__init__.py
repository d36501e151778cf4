"""The page for people, as files that the server hands out: HTML, CSS and JavaScript."""
