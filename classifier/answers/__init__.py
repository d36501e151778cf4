"""Answers to any number of images, in parts: what they are asked of, how they are written, and which are done."""
