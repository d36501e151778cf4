"""Schemas are learned from the training images alone."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from classifier.data.columns.learn import MAX_VALUES, learn_schema
from classifier.data.columns.request import ColumnRequest
from classifier.data.columns.schema import ColumnSchema
from classifier.errors import DataError


def learn(
    texts: Mapping[str, Sequence[str]], *words: str, training: int | None = None
) -> tuple[ColumnSchema, list[str]]:
    count = len(next(iter(texts.values())))
    ids = [f"{n}.png" for n in range(count)]
    is_training_N = np.arange(count) < (count if training is None else training)
    return learn_schema("set", texts, ids, is_training_N, ColumnRequest.parse(words or ("all",)))


def test_statistics_of_the_training_images() -> None:
    texts = {"weight": ["1", "3", "", "5", "1000"], "colour": ["Red", "red", "red", "blue", "green"]}
    schema, findings = learn(texts, training=4)
    weight, colour = schema.columns
    assert (weight.kind, weight.mean) == ("number", 3)
    assert weight.std == pytest.approx(np.std([1, 3, 5]))
    assert (colour.kind, colour.values, colour.width) == ("category", ("red",), 2)
    assert findings == ["columns: weight (number), colour (category of 1)."]
    standardised_M = schema.encode_texts(texts, ["x"] * 5)[[0, 1, 3], 1]
    assert standardised_M.mean() == pytest.approx(0, abs=1e-6)
    assert standardised_M.std() == pytest.approx(1)


def test_the_kind_may_be_given() -> None:
    schema, _ = learn({"code": ["1", "2", "1", "2"]}, "code:category")
    assert schema.columns[0].values == ("1", "2")
    schema, _ = learn({"when": ["1/13/2020", "2/1/2020"]}, "when:date")
    assert not schema.columns[0].is_day_first


def test_rare_categories_share_a_place() -> None:
    values = [str(n) for n in range(100) for _ in range(1 + (n < 90))]
    schema, _ = learn({"code": [f"c{value}" for value in values]})
    assert len(schema.columns[0].values) == MAX_VALUES
    schema, _ = learn({"code": ["a", "b", "c"]}, "code:category")  # none occurs twice
    assert schema.columns[0].values == ("a", "b", "c")


def test_columns_that_tell_nothing() -> None:
    texts = {"same": ["x"] * 4, "none": [""] * 4, "some": ["x", "", "x", ""], "weight": ["1", "2", "3", "3"]}
    schema, findings = learn(texts)
    assert schema.names == ("some", "weight")
    assert findings[1:] == [
        "the column none has no value in any training image and is left out.",
        "the column same has the same value everywhere and is left out.",
    ]
    with pytest.raises(DataError, match="set: the column none has no value in any training image: fill it in"):
        learn(texts, "none", "weight")
    with pytest.raises(DataError, match="set: no column tells images apart"):
        learn({"same": ["x"] * 4})


def test_a_number_that_is_none_is_named() -> None:
    with pytest.raises(DataError, match=r"7\.png: weight is 'heavy', which is no number: .*weight:category"):
        learn({"weight": [*"0123456", "heavy", *"1234567890"]})
    with pytest.raises(DataError, match=r"1\.png: when is '30\.2\.2020', which is no date"):
        learn({"when": ["1.1.2020", "30.2.2020"]}, "when:date")


def test_only_unknown_numbers_are_encoded() -> None:
    schema, _ = learn({"weight": ["?", "", "-"]}, "weight:number")
    assert np.isnan(schema.encode_texts({"weight": ["?", "3"]}, ["a", "b"])[0, 1])


def test_too_many_columns() -> None:
    with pytest.raises(DataError, match="set has 1,001 columns: name those that matter"):
        learn({f"c{n}": ["1", "2"] for n in range(1001)})
    with pytest.raises(DataError, match=r"set has a column with a name of 2,000 characters \(xxx"):
        learn({"x" * 2000: ["1", "2"]})
    with pytest.raises(DataError, match="become 10,241 numbers, more than 10,000"):
        learn({f"c{n}": ["a b c d e f", "some other words of it"] for n in range(40)})
