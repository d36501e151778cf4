"""Splits by the words in names."""

import pytest

from classifier.data.split_names import (
    TEST,
    TRAIN,
    UNASSIGNED,
    VALIDATION,
    SplitName,
    infer_splits,
    parse_split,
    parse_split_names,
)
from classifier.errors import DataError

PLAIN = {
    TRAIN: "train Training TRAIN trainset TrainingSet train_images train2017 images.train train-val my_train",
    VALIDATION: "val valid Validation dev DevSet val2017 Validation-Set development_data",
    TEST: "test Testing TESTSET test1 test_images Test.Set hold-out heldout holdout_set",
}


@pytest.mark.parametrize(("split", "name"), [(s, name) for s, names in PLAIN.items() for name in names.split()])
def test_names_that_say_nothing_but_a_split(split: int, name: str) -> None:
    assert parse_split_names([name]) == [SplitName(split, "")]


def test_other_words_remain() -> None:
    names = ["seg_train", "ASL_Alphabet_Test", "trainA", "train_station", "testTube"]
    assert [found and found.rest for found in parse_split_names(names)] == [
        "seg",
        "asl alphabet",
        "a",
        "station",
        "tube",
    ]
    for name in ("cats", "device", "valley", "trainer", "untrained", "testament", "train_test_split", "contest", ""):
        assert parse_split_names([name]) == [None]


def test_eval_is_the_test_split_unless_there_is_another() -> None:
    assert [name and name.split for name in parse_split_names(["train", "eval"])] == [TRAIN, TEST]
    assert [name and name.split for name in parse_split_names(["test", "evaluation"])] == [TEST, VALIDATION]


def test_files_name_their_splits_or_their_folders_do() -> None:
    paths = ["train-0000.tar", "training/0.tar", "data/dev-00000-of-00004.parquet", "test/cats.tar", "0.tar"]
    assert infer_splits(paths) == [TRAIN, TRAIN, VALIDATION, TEST, UNASSIGNED]


def test_a_row_names_its_split_or_is_refused() -> None:
    for value, split in (
        ("Training", TRAIN),
        ("dev set", VALIDATION),
        (" test ", TEST),
        (None, UNASSIGNED),
        ("", UNASSIGNED),
    ):
        assert parse_split("line 2", value) == split
    for value in ("eval", "unlabelled", "seg_train", "7"):
        with pytest.raises(DataError, match=f"line 2: unknown split '{value}'"):
            parse_split("line 2", value)
