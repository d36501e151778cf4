"""Where pixels live: arrays, memory-mapped segments, lazily decoded rows, streams. Kept empty so that decoding processes load no torch."""
