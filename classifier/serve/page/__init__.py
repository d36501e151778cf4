"""The page for people: HTML, CSS and JavaScript that the server hands out, and the heatmaps that it shows."""
