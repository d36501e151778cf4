"""Short text as numbers: hashed words and parts of words, without a vocabulary.

K. Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", 2009; the parts of words are those of
P. Bojanowski et al., "Enriching Word Vectors with Subword Information", 2017.
"""

import itertools
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import xxhash

WIDTH = 256
NGRAM_LENGTHS = (3, 4)
MAX_WORDS, MAX_WORD_LENGTH = 200, 40
_WORD = re.compile(r"\w+")


def hash_texts(texts: Sequence[str], width: int = WIDTH) -> np.ndarray:
    """Return vectors_NF, float32: signed counts of words, pairs of words and n-grams of characters, of length 1.

    Case does not count. A text without a word is a vector of zeros.
    """
    words: dict[str, np.ndarray] = {}
    vectors: dict[str, np.ndarray] = {}
    hashed_NF = np.empty((len(texts), width), np.float32)
    for n, text in enumerate(texts):
        if (vector := vectors.get(text)) is None:
            vector = vectors[text] = _hash_text(text, width, words)
        hashed_NF[n] = vector
    return hashed_NF


def _hash_text(text: str, width: int, known: dict[str, np.ndarray]) -> np.ndarray:
    """known: the positions of each word and of its parts, as _find_positions returns them; filled here."""
    words = [word[:MAX_WORD_LENGTH] for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold())]
    words = words[:MAX_WORDS]
    if not words:
        return np.zeros(width, np.float32)
    for word in words:
        if word not in known:
            known[word] = _find_positions([word, *_list_parts(word)], width)
    pairs = _find_positions([f"{first} {second}" for first, second in itertools.pairwise(words)], width)
    positions = np.concatenate([*(known[word] for word in words), pairs])
    counts = np.bincount(positions, minlength=2 * width)
    vector = (counts[:width] - counts[width:]).astype(np.float32)
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def _list_parts(word: str) -> list[str]:
    marked = f"<{word}>"
    return [marked[n : n + length] for length in NGRAM_LENGTHS for n in range(len(marked) - length + 1)]


def _find_positions(features: list[str], width: int) -> np.ndarray:
    """Return a position in [0, 2 * width) for each: those from width on count negatively."""
    hashes = [xxhash.xxh64_intdigest(feature.encode()) for feature in features]
    return np.array([value % (2 * width) for value in hashes], np.int64)
