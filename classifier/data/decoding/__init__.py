"""Bytes to pixels, in threads or in worker processes. Kept empty so that decoding processes load no torch."""
