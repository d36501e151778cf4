"""Hashed text."""

import numpy as np

from classifier.data.columns.text_hashing import WIDTH, hash_texts


def test_similar_texts_have_similar_vectors() -> None:
    texts = ["a green stone from the river", "Green stones from a river.", "electric locomotive, 1950", "a green stone"]
    vectors_NF = hash_texts([*texts, texts[0], "", "!?"])
    assert vectors_NF.shape == (7, WIDTH)
    assert vectors_NF.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors_NF[:5], axis=1), 1, rtol=1e-6)
    assert not vectors_NF[5:].any()
    np.testing.assert_array_equal(vectors_NF[0], vectors_NF[4])
    similarity = vectors_NF[:4] @ vectors_NF[:4].T
    assert similarity[0, 1] > 0.6 > 0.2 > abs(similarity[0, 2])


def test_vectors_are_the_same_in_every_version() -> None:
    """A model that was saved with them depends on it."""
    np.testing.assert_allclose(hash_texts(["a stone"], 8)[0] * 3, [2, 0, 0, 0, 0, -2, 0, 1], rtol=1e-6)


def test_long_texts_are_bounded() -> None:
    hashed = hash_texts(["x" * 100_000, "word " * 100_000])
    assert np.isfinite(hashed).all()
