"""Pixel storage: arrays, memory-mapped segments, lazily decoded rows, streams.

Empty, so that decoding processes load no torch.
"""
