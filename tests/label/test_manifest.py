"""The manifest: extended, never overwritten silently, and read by a training whatever the names in it."""

import csv
import os
from pathlib import Path

import pytest

from classifier.data.readers.manifests.manifest import read_manifest
from classifier.errors import DataError
from classifier.label.names import check_name
from tests.label.conftest import Opener, true_label, write_images

HOSTILE = (
    "=cmd|'/c calc'!A1.png",
    'a "quote", b.png',
    "<img src=x onerror=alert(1)>.png",
    "line\nbreak.png",
    "é\u202e.png",
)


def answer_all(desk, labels=lambda name: [true_label(name)]) -> None:
    for item in desk.labelling.describe()["items"]:
        if not item["is_answered"]:
            desk.labelling.answer(item["key"], labels(item["name"]))


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [*csv.DictReader(file)]


def test_each_answer_is_in_the_manifest_and_an_undone_one_is_not(images: Path, open_desk: Opener):
    desk = open_desk(images)
    items = desk.labelling.describe()["items"]
    assert len(items) == 12
    for count, item in enumerate(items, 1):
        state = desk.labelling.answer(item["key"], [true_label(item["name"])])
        assert state["answered"] == len(read_rows(desk.manifest)) == count
    assert desk.labelling.undo()["undone"] == items[-1]["key"]
    assert len(read_rows(desk.manifest)) == 11
    desk.labelling.answer(items[-1]["key"], None)
    source = read_manifest(desk.manifest)
    assert sorted(source.class_names) == ["blue", "green", "red"]
    assert all(true_label(id_) == source.class_names[k] for id_, k in zip(source.ids, source.labels_N, strict=True))
    assert {Path(str(file)) for file in source.images} <= {*images.iterdir()}


def test_another_process_goes_on_where_one_ended(images: Path, open_desk: Opener):
    first = open_desk(images)
    items = first.labelling.describe()["items"]
    for item in items[:5]:
        first.labelling.answer(item["key"], [true_label(item["name"])])
    first.manifest.unlink()  # as if it had been killed before
    open_desk.close()
    again = open_desk(images).labelling.describe()
    assert [item["key"] for item in again["items"]] == [item["key"] for item in items]
    assert [item["is_answered"] for item in again["items"]] == [True] * 5 + [False] * 7
    assert len(read_rows(first.manifest)) == 5


def test_further_images_are_chosen_until_there_are_none(images: Path, open_desk: Opener):
    desk = open_desk(images)
    seen: list[int] = []
    for expected in (12, 12, 6):
        items = desk.labelling.describe()["items"]
        assert len(items) == expected
        seen += [item["key"] for item in items]
        answer_all(desk)
        desk.labelling.choose_more()
    assert sorted(seen) == [*range(30)]
    assert desk.labelling.choose_more()["added"] == 0
    assert all(true_label(item["name"]) == item["guess"][0] for item in desk.labelling.describe()["items"])


def test_an_existing_manifest_is_extended_in_its_own_way(images: Path, open_desk: Opener):
    path = images.with_name("mine.csv")
    rows = [
        f"{'red' if n % 3 == 2 else 'x'};images/{file.name};;keep" for n, file in enumerate(sorted(images.iterdir()))
    ]
    path.write_text("label;Path;split;note\n" + "\n".join(rows[:9]) + "\n")
    desk = open_desk(images, manifest=path)
    answer_all(desk)
    with path.open(newline="") as file:
        names, *table = csv.reader(file, delimiter=";")
    assert names == ["label", "Path", "split", "note"]
    assert [";".join(row) for row in table[:9]] == rows[:9]
    assert len(table) == 21
    assert all(row[0] == true_label(row[1]) and row[2:] == ["", ""] for row in table[9:])
    assert not {row[1] for row in table[:9]} & {row[1] for row in table[9:]}
    assert len(read_manifest(path).ids) == 21


def test_changes_by_hand_are_not_lost(images: Path, open_desk: Opener):
    desk = open_desk(images)
    answer_all(desk)
    open_desk.close()
    text = desk.manifest.read_text()
    other = next(file.name for file in sorted(images.iterdir()) if file.name not in text)
    desk.manifest.write_text(text + f'"images/{other}","red"\n')
    open_desk(images)  # a row of another image stays
    assert other in desk.manifest.read_text()
    open_desk.close()
    desk.manifest.write_text(text.replace('"green"', '"lime"', 1))
    with pytest.raises(DataError, match="changed by another program"):
        open_desk(images)
    assert "lime" in desk.manifest.read_text()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a,b\n1,2\n", "no first line that names"),
        ("path,label\nimages/000-blue.png,a;b\nimages/001-green.png,b\n", "JSON"),
    ],
)
def test_manifests_that_cannot_be_extended_are_refused(images: Path, open_desk: Opener, content: str, sentence: str):
    path = images.with_name("mine.csv")
    path.write_text(content)
    with pytest.raises(DataError, match=sentence):
        open_desk(images, manifest=path, is_multilabel=True)
    assert path.read_text() == content
    open_desk.close()
    with pytest.raises(DataError, match=r"ends with \.csv"):
        open_desk(images, manifest=images.with_name("mine.parquet"))


def test_several_labels_an_image(images: Path, open_desk: Opener):
    desk = open_desk(images, is_multilabel=True)
    sets = {"blue": [], "green": ["green", "a colour"], "red": ["red"]}
    answer_all(desk, lambda name: sets[true_label(name)])
    source = read_manifest(desk.manifest)
    assert source.label_sets is not None
    for id_, n in zip(source.ids, source.labels_N, strict=True):
        assert sorted(source.class_names[k] for k in source.label_sets[n]) == sorted(sets[true_label(id_)])


def test_hostile_names_stay_what_they_are(tmp_path: Path, open_desk: Opener):
    names = (*HOSTILE, os.fsdecode(b"caf\xe9.png"))
    folder = tmp_path / "images"
    write_images(folder, 12, lambda n, name: f"{name} {names[n // 2]}".replace("/", "%"))
    desk = open_desk(folder)
    answer_all(desk)
    source = read_manifest(desk.manifest)
    assert {Path(str(file)) for file in source.images} == {*folder.iterdir()}
    shown = [item["name"] for item in desk.labelling.describe()["items"]]
    assert not any(character in "".join(shown) for character in "\n\u202e\udce9")


def test_names_of_classes_are_ones_that_a_manifest_can_hold():
    assert check_name("  big   cat ", ()) == "big cat"
    assert check_name("Cat", ["cat"]) == "cat"
    assert check_name("a;b", ["a;b"]) == "a;b"
    for bad in ("", "  ", "a;b", "a|b", "a,b", "[x]", "x" * 101, "a\u202eb", "-1", "\ufeff"):
        with pytest.raises(DataError):
            check_name(bad, ["cat"])


def test_two_annotators_share_images_and_disagreements_are_resolved(images: Path, open_desk: Opener):
    anna = open_desk(images, "anna")
    answer_all(anna)
    ben = open_desk(images, "ben", overlap=0.5)
    shared = {item["key"] for item in anna.labelling.describe()["items"]}
    own = {item["key"] for item in ben.labelling.describe()["items"]}
    assert len(own) == 12
    assert len(own & shared) == 6
    assert not any(item["answer"] for item in ben.labelling.describe()["items"])  # anna's are hidden
    wrong = min(own & shared)
    for item in ben.labelling.describe()["items"]:
        label = "purple" if item["key"] == wrong else true_label(item["name"])
        ben.labelling.answer(item["key"], [label])
    compared = ben.labelling.compare()
    [kappa] = compared["kappas"]
    assert (kappa["annotators"], kappa["images"], kappa["same"]) == (("anna", "ben"), 6, 5)
    [one] = compared["disagreements"]
    assert (one["key"], one["said"]["ben"]) == (wrong, ("purple",))
    rows = read_rows(ben.manifest)
    assert len(rows) == 17
    assert {row["annotator"] for row in rows} == {"anna", "ben", "anna+ben"}
    assert ben.labelling.resolve(one["image"], [true_label(one["name"])])["disagreements"] == []
    assert len(read_rows(ben.manifest)) == 18
    with pytest.raises(DataError, match="disagrees"):
        ben.labelling.resolve(one["image"], ["purple"])
    assert len(read_manifest(ben.manifest).ids) == 18
