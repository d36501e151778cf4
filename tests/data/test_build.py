"""From a source to a data set: a share of errors is tolerated, statistics of the training images, a fingerprint."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from classifier.config.experiment import Experiment
from classifier.config.sections import DataConfig
from classifier.data import load
from classifier.data.build import compute_statistics
from classifier.data.dataset import Split
from classifier.errors import DataError
from classifier.training.resolve import resolve


def config(folder: Path, **settings: object) -> DataConfig:
    return DataConfig(**({"path": str(folder), "size": 8, "cache": None} | settings))  # pyright: ignore[reportArgumentType]


def test_images_keep_their_labels(photos: Path) -> None:
    dataset = load(config(photos, size=10))
    for split in (dataset.train, dataset.validation, dataset.test):
        assert split.images_NCHW[:].dtype == torch.uint8
        assert split.labels_N.dtype == torch.int64
        for image_CHW, label, id_ in zip(split.images_NCHW, split.labels_N.tolist(), split.ids, strict=True):
            assert id_.startswith(dataset.class_names[label])
            from PIL import Image

            with Image.open(photos / id_) as image:
                np.testing.assert_array_equal(image_CHW.numpy(), np.asarray(image)[:, 1:11].transpose(2, 0, 1))


def test_statistics_of_the_training_images(photos: Path) -> None:
    dataset = load(config(photos))
    scaled = dataset.train.images_NCHW[:].double() / 255
    torch.testing.assert_close(torch.tensor(dataset.mean).double(), scaled.mean((0, 2, 3)), check_dtype=False)
    torch.testing.assert_close(
        torch.tensor(dataset.std).double(), scaled.std((0, 2, 3), correction=0), check_dtype=False
    )


def test_statistics_of_flat_and_of_many_images() -> None:
    assert compute_statistics(torch.full((3, 1, 4, 4), 51, dtype=torch.uint8)) == ((0.2,), (1 / 255,))
    images_NCHW = np.random.default_rng(0).integers(0, 256, (50, 3, 128, 128), dtype=np.uint8)
    mean, std = compute_statistics(torch.from_numpy(images_NCHW))
    np.testing.assert_allclose(mean, images_NCHW[:, :, ::4].mean((0, 2, 3)) / 255)
    np.testing.assert_allclose(std, images_NCHW[:, :, ::4].std((0, 2, 3)) / 255)
    small = images_NCHW[..., :63, :]
    np.testing.assert_allclose(compute_statistics(torch.from_numpy(small))[0], small.mean((0, 2, 3)) / 255)


def test_fingerprint_changes_with_the_data(photos: Path, paint: Callable[[Path], Path], tmp_path: Path) -> None:
    first = load(config(photos)).fingerprint
    assert load(config(photos)).fingerprint == first
    shutil.move(photos, tmp_path / "moved")
    photos = tmp_path / "moved"
    assert load(config(photos)).fingerprint == first
    others = [load(config(photos, **change)).fingerprint for change in ({"size": 9}, {"channels": 1}, {"fit": "pad"})]
    others += [load(config(photos, **change)).fingerprint for change in ({"split_seed": 1}, {"test": 0.4})]
    shutil.move(photos / "cat" / "03.png", photos / "dog" / "zz.png")
    others.append(load(config(photos)).fingerprint)
    paint(photos / "cat" / "03.png")
    others.append(load(config(photos)).fingerprint)
    assert len({first, *others}) == 8


def test_adding_images_moves_no_other(photos: Path, paint: Callable[[Path], Path]) -> None:
    def find_splits() -> dict[str, str]:
        dataset = load(config(photos))
        assert not dataset.split_record["loans"]
        return {id_: split for split in dataset.counts for id_ in getattr(dataset, split).ids}

    before = find_splits()
    for number in range(30):
        paint(photos / "cat" / f"new{number}.png")
    after = find_splits()
    assert {id_: after[id_] for id_ in before} == before
    assert len(after) == 70


def test_corrupt_files_are_skipped_up_to_a_share_and_refused_above_it(photos: Path) -> None:
    (photos / "cat" / "03.png").write_text("no image")
    (photos / "dog" / "05.png").write_bytes(b"")
    reasons = "cat/03.png (it is not an image, or its format is unknown), dog/05.png (the file is empty)"
    dataset = load(config(photos, max_corrupt=0.05))
    assert dataset.findings[0] == f"2 of 40 images cannot be used and were skipped: {reasons}."
    assert sum(dataset.counts.values()) == 38
    assert dataset.split_record["unreadable_count"] == 2
    assert [flaw["id"] for flaw in dataset.split_record["unreadable"]] == ["cat/03.png", "dog/05.png"]
    assert not {"cat/03.png", "dog/05.png"} & {*dataset.train.ids, *dataset.validation.ids, *dataset.test.ids}
    with pytest.raises(DataError) as caught:
        load(config(photos, max_corrupt=0.04))
    assert str(caught.value) == (
        f"photos: 2 of 40 images (5.0%, more than data.max_corrupt 4.0%) cannot be used: {reasons}; "
        "replace or remove them, or raise --data.max_corrupt"
    )
    with pytest.raises(DataError, match="2 of 40 images"):  # 1 % by default
        load(config(photos))
    (photos / "cat" / "03.png").unlink()
    shutil.copy(photos / "dog" / "04.png", photos / "dog" / "05.png")
    assert not load(config(photos)).split_record["unreadable"]


def test_class_without_a_readable_image(photos: Path) -> None:
    for path in (photos / "cat").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="photos: the class 'cat' has no image: add more, or remove it"):
        load(config(photos, max_corrupt=1.0))
    for path in (photos / "dog").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="the class 'cat' has no image"):
        load(config(photos, max_corrupt=1.0))


@pytest.mark.parametrize(("validation", "test"), [(0.0, 0.2), (0.3, 0.0), (0.0, 0.0)])
def test_splits_of_share_0_are_empty(validation: float, test: float, photos: Path) -> None:
    dataset = load(config(photos, validation=validation, test=test))
    assert (len(dataset.validation) == 0) == (validation == 0)
    assert (len(dataset.test) == 0) == (test == 0)
    assert dataset.test.images_NCHW.shape[1:] == dataset.train.images_NCHW.shape[1:]


def test_reassignments_are_reported(paint: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = tmp_path / "few"
    for name, count in (("cat", 60), ("dog", 3)):
        for number in range(count):
            paint(folder / name / f"{number}.png")
    dataset = load(config(folder))
    for split in (dataset.train, dataset.validation, dataset.test):
        assert set(split.labels_N.tolist()) == {0, 1}
    reassignments = dataset.split_record["loans"]
    assert reassignments
    for moved in reassignments:
        assert set(moved) == {"id", "class_name", "home", "split"}
        assert moved["id"] in getattr(dataset, moved["split"]).ids
    assert any(f"{len(reassignments)} images of small classes were moved" in finding for finding in dataset.findings)


def test_single_class_is_refused(photos: Path) -> None:
    shutil.rmtree(photos / "cat")
    with pytest.raises(DataError, match=r"photos has fewer than two classes \('dog'\)"):
        load(config(photos))


def test_class_with_a_single_image_is_trained_and_not_tested(photos: Path, paint: Callable[[Path], Path]) -> None:
    paint(photos / "bird" / "a.png")
    dataset = load(config(photos))
    assert "bird/a.png" in dataset.train.ids
    assert "The class 'bird' has only one image, which trains: it is not tested." in dataset.findings
    for name in ("cat", "dog"):
        for file in sorted((photos / name).iterdir())[1:]:
            file.unlink()
    lone = load(config(photos))
    assert lone.counts == {"train": 3, "validation": 0, "test": 0}
    assert lone.why_untested == "every class has only one image"
    assert lone.how_to_fill("validation") == "add images, as these are too few for a validation split"
    with pytest.raises(DataError, match="photos has no validation images: add images, as these are too few for a val"):
        resolve(Experiment().override("data.batch", 2), lone)


LABELS = [("cat",), ("cat", "dog"), (), ("dog", "owl"), ("owl",)]


@pytest.fixture
def several(paint: Callable[[Path], Path], tmp_path: Path) -> Path:
    """A manifest of 60 images with none to two of three labels."""
    lines = [f"{paint(tmp_path / f'{n:02d}.png').name},{';'.join(LABELS[n % 5]) or '[]'}" for n in range(60)]
    (tmp_path / "several.csv").write_text("\n".join(["path,labels", *lines]))
    return tmp_path / "several.csv"


def test_images_keep_their_several_labels(several: Path) -> None:
    dataset = load(config(several))
    assert (dataset.task, dataset.class_names) == ("multilabel", ("cat", "dog", "owl"))
    assert dataset.label_sets_MK is not None
    assert dataset.label_sets_MK.tolist() == [[n in one for n in (0, 1, 2)] for one in ((), (0,), (0, 1), (1, 2), (2,))]
    assert sum(dataset.counts.values()) == 60
    for split in (dataset.train, dataset.validation, dataset.test):
        targets_NK = dataset.label_sets_MK[split.labels_N]
        assert targets_NK.any(0).all()
        for id_, target_K in zip(split.ids, targets_NK.tolist(), strict=True):
            labels = LABELS[int(id_.removesuffix(".png")) % 5]
            assert target_K == [name in labels for name in dataset.class_names]
    about = "its images have 0 to 2 of 3 labels, 1.2 on average, separated by ';': multilabel (--data.task)."
    assert about in dataset.findings
    folds = load(config(several, folds=3, fold=1))
    assert len(folds.test) == 20
    small = load(config(several, limit=12))
    assert small.label_sets_MK is not None
    assert small.label_sets_MK[small.train.labels_N].any(0).all()


def test_the_setting_decides_whether_images_have_several_labels(several: Path, photos: Path) -> None:
    with pytest.raises(DataError, match=r"01\.png has several labels \(cat, dog\), but one class under data\.task mu"):
        load(config(several, task="multiclass"))
    single, auto = load(config(photos, task="multilabel")), load(config(photos))
    assert single.label_sets_MK is not None
    assert (auto.label_sets_MK, auto.task, single.task) == (None, "multiclass", "multilabel")
    assert single.label_sets_MK.tolist() == [[True, False], [False, True]]
    assert single.train.labels_N.tolist() == auto.train.labels_N.tolist()
    assert "its images have 1 of 2 labels each: multilabel (--data.task)." in single.findings
    assert single.fingerprint != auto.fingerprint


def test_the_fingerprint_changes_with_a_label_of_several(several: Path) -> None:
    before = load(config(several)).fingerprint
    several.write_text(several.read_text().replace("dog;owl", "cat;owl"))  # as many sets, of other labels
    assert load(config(several)).fingerprint != before


def test_images_that_belong_together_are_of_one_unit(photos: Path) -> None:
    assert load(config(photos)).train.units_N is None, "all stand alone"
    rows = [f"{path.parent.name}/{path.name},{path.parent.name},{path.stem[1]}" for path in photos.rglob("*.png")]
    (photos / "all.csv").write_text("\n".join(["path,label,scene", *rows]))
    merged = load(config(photos / "all.csv", group="scene")).merge_validation(Experiment()).train
    for split in (merged, merged.take(torch.arange(len(merged) - 1, -1, -2))):
        assert split.units_N is not None
        assert len(split.units_N) == len(split) > 10
        scenes = {id.partition(".")[0][-1] for id in split.ids}
        pairs = {(unit, id.partition(".")[0][-1]) for unit, id in zip(split.units_N.tolist(), split.ids, strict=True)}
        assert len(pairs) == len({unit for unit, _ in pairs}) == len(scenes)
    shutil.copy(photos / "cat" / "03.png", photos / "dog" / "copy.png")
    units = [split.units_N for split in vars(load(config(photos))).values() if isinstance(split, Split)]
    assert len(torch.cat([units_N for units_N in units if units_N is not None]).unique()) == 40
