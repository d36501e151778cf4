"""The setting data.columns."""

import pytest

from classifier.data.columns.request import ColumnRequest, describe_unused, list_free
from classifier.errors import ConfigError, DataError

HAVE = ["path", "label", "Weight", "colour", "patient", "Unnamed: 0", "", "file_name", "fine"]


def choose(*words: str) -> list[str]:
    return ColumnRequest.parse(words).choose("set.csv", HAVE, ["path", "label", "fine"], "patient")


def test_names_and_kinds() -> None:
    request = ColumnRequest.parse(["Weight:number", "colour, a:b"])
    assert request.names == ("Weight", "colour", "a:b")
    assert request.kinds == {"Weight": "number"}
    assert not ColumnRequest.parse([])
    assert not ColumnRequest().takes_all


def test_all_leaves_out_what_says_which_image_or_answer_it_is() -> None:
    assert choose("all") == ["Weight", "colour"]
    assert choose("all", "Weight:text") == ["Weight", "colour"]
    assert choose("patient") == ["patient"]
    assert choose("colour", "Weight") == ["Weight", "colour"]
    assert choose() == []
    assert list_free(HAVE, ["path", "label", "fine"]) == ["Weight", "colour", "patient"]


WRONG = {"weight": "there is no column weight .*did you mean Weight?", "xyz": "only Weight, colour, patient.*correct"}
WRONG |= dict.fromkeys(("label", "path", "fine", "file_name"), "is no input")


@pytest.mark.parametrize(("name", "reason"), WRONG.items())
def test_wrong_names(name: str, reason: str) -> None:
    with pytest.raises(DataError, match=f"set.csv: .*{reason}"):
        choose(name)


@pytest.mark.parametrize("words", [["a", "a"], ["a,a:text"], [""], [" "], [":text"]])
def test_wrong_settings(words: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"data\.columns"):
        ColumnRequest.parse(words)


def test_unused_columns_are_told() -> None:
    assert describe_unused("set.csv", []) == []
    assert describe_unused("set.csv", ["a"]) == ["set.csv: its column a is not used: --data.columns all."]
    assert describe_unused("s", ["a", "b"]) == ["s: its columns a, b are not used: --data.columns all."]
