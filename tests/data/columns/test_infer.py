"""Kinds of columns."""

from collections import Counter

import pytest

from classifier.data.columns.infer import find_day_order, infer_kind

KINDS = {
    "number": [["1", "2", "3"], ["1.5", "1.5", "7e3"], ["3,5", "4,25"], ["0", "1"] * 9, ["-"] + ["1"] * 9],
    "date": [["2020-01-01", "2021-05-02"], ["1.2.2020"], ["13/1/2020", "1/2/2020"], ["1/13/2020 10:00"]],
    "category": [["red", "blue"] * 5, ["true", "false"] * 2, ["007", "007", "012", "012"], ["1/2/2020"] * 3],
    "text": [["a long text of many words"] * 5, ["Anna", "Ben", "Carl"], ["007", "012"], ["1", "2", "three"]],
}
KINDS["number"].append([*map(str, range(18)), "twelve"])


@pytest.mark.parametrize(("kind", "values"), [(kind, values) for kind, lists in KINDS.items() for values in lists])
def test_kinds(kind: str, values: list[str]) -> None:
    assert infer_kind(Counter(values)) == kind


def test_order_of_day_and_month() -> None:
    assert find_day_order({"13/1/2020": 1, "1/1/2020": 1}) is True
    assert find_day_order({"1/13/2020": 1}) is False
    assert find_day_order({"1/13/2020": 1, "13/1/2020": 1}) is None
    assert find_day_order({"1/1/2020": 1}) is None
