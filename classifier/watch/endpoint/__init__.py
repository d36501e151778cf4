"""POST /watch of `serve`: a film is sent, its events come back as they are found."""
