"""Image bytes to pixels, in threads or in worker processes.

Empty, so that decoding processes load no torch.
"""
