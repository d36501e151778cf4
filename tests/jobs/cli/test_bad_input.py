"""User errors: one line that names what is wrong and the fix, exit code 2, no folder left behind.

With the real command, except where it would start torch only to refuse something.
"""

import re

import pytest
from PIL import Image


def refused(done, tmp_path, *words: str) -> str:
    """Exit code 2, one line on stderr with these words, and no run folder."""
    assert done.code == 2, done.err + done.out
    # On a slow machine a phase that takes long is named before it.
    lines = [line for line in done.err.strip().splitlines() if not line.endswith(" ...")]
    assert len(lines) == 1, done.err
    for word in words:
        assert re.search(word, lines[0]), lines[0]
    assert not list((tmp_path / "runs").glob("*/*")) if (tmp_path / "runs").exists() else True
    assert not list((tmp_path / "runs").glob("*")) if (tmp_path / "runs").exists() else True
    return lines[0]


SETTINGS = [
    (["--data.bath", "3"], ["--data.bath", "did you mean --data.batch"]),
    (["--lr", "1"], ["--lr", "--optimizer.lr"]),
    (["--data.batch", "many"], ["data.batch", "many", "whole number"]),
    (["--data.batch"], ["--data.batch needs a value"]),
    (["--optimizer.lr", "-1"], ["optimizer.lr", "above 0"]),
    (["--optimizer.lr", "nan"], ["optimizer.lr", "finite"]),
    (["--optimizer.name", "sdg"], ["optimizer.name", "sgd"]),
    (["--train.compile", "perhaps"], ["perhaps"]),
    (["--recipe", "digts"], ["digts", "did you mean digits"]),
    (["--search.trials", "3"], ["search.trials", "does not take"]),
    (["photos/", "more/"], ["more/", "--name value"]),
    (["--data", "photos/"], ["--data:", "did you mean --data.path"]),
    (["photos/", "--data.path", "others/"], ["photos/", "others/", "one of them"]),
    (["--experiment", "absent.yaml"], [r"absent\.yaml"]),
]


@pytest.mark.parametrize(("words", "says"), SETTINGS, ids=lambda w: " ".join(w) if isinstance(w, list) else w)
def test_bad_settings_are_refused_before_torch_is_loaded(verb, tmp_path, words, says):
    refused(verb("train", *words), tmp_path, *says)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--resume", "runs/absent"], ["runs/absent", "not a run folder"]),
        (["--resume", "runs/absent", "--recipe", "digits"], ["--recipe", "--resume"]),
        (["--name", "../away"], [r"\.\./away"]),
    ],
)
def test_bad_run_folders(here, tmp_path, words, says):
    refused(here("train", *words), tmp_path, *says)


def test_unknown_model(here, tmp_path):
    refused(here("train", "--model.name", "resnet8_32"), tmp_path, "resnet8_32", "resnet9_32")


def test_missing_path(verb, tmp_path):
    refused(verb("train", "--data.path", "phots/"), tmp_path, "phots")


def test_empty_folder(here, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(here("train", "--data.path", "empty"), tmp_path, "empty")


def test_single_class(here, tmp_path, draw):
    draw(tmp_path / "photos", {"red": 9})
    refused(here("train", "--data.path", "photos"), tmp_path, "photos", "red", "class")


def test_labels_that_differ_only_in_case(here, tmp_path, draw):
    draw(tmp_path / "photos", {"red": 9, "Red": 9})
    refused(here("train", "--data.path", "photos"), tmp_path, "red", "Red")


def test_too_many_unreadable_images(here, tmp_path, photos):
    for i in range(3):
        (photos / "red" / f"bad{i}.png").write_bytes(b"no image at all")
    refused(here("train", "--data.path", "photos"), tmp_path, r"bad\d\.png", "max_corrupt")


def test_truncated_empty_and_tiny_images_count_as_corrupt(here, tmp_path, photos):
    whole = (photos / "red" / "000.png").read_bytes()
    (photos / "red" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (photos / "red" / "none.png").write_bytes(b"")
    Image.new("RGB", (1, 1)).save(photos / "red" / "dot.png")
    said = refused(here("train", "--data.path", "photos"), tmp_path, "max_corrupt", "3")
    assert sum(name in said for name in ("cut.png", "none.png", "dot.png")) >= 1


def test_few_corrupt_images_are_skipped_and_listed(verb, tmp_path, photos):
    (photos / "red" / "bad.png").write_bytes(b"no image at all")
    done = verb("train", "--data.path", "photos", "--train.epochs", "1", "--data.batch", "16")
    assert done.code == 0, done.err
    assert "bad.png" in done.out
    assert sum(done.result["dataset"]["counts"].values()) == 120


def test_batch_larger_than_the_data_set(here, tmp_path, photos):
    refused(here("train", "--data.path", "photos", "--data.batch", "5000"), tmp_path, "5000", "--data.batch 64")


def test_unwritable_out(here, tmp_path):
    (tmp_path / "file").write_text("")
    done = here("train", "--out", "file/runs")
    assert (done.code, done.out) == (2, "")
    assert "--out" in done.err


def test_taken_name(here, tmp_path):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    done = here("train", "--name", "mine")
    assert done.code == 2
    assert re.search(r"runs/mine already exists", done.err)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file,label\na.png,x\n", ["path", "label"]),
        ("path,label\nabsent.png,x\nalso.png,y\n", [r"absent\.png"]),
        ("path,label,split\nphotos/red/000.png,x,nowhere\n", ["nowhere"]),
    ],
)
def test_bad_manifest(here, tmp_path, photos, text, says):
    (tmp_path / "m.csv").write_text(text)
    refused(here("train", "--data.path", "m.csv"), tmp_path, r"m\.csv", *says)


def test_bad_weights_file(here, tmp_path):
    (tmp_path / "w.pth").write_bytes(b"no weights")
    refused(here("train", "--model.weights", "w.pth"), tmp_path, r"w\.pth")


def test_evaluate_and_predict_refuse_what_is_not_a_model(verb, tmp_path):
    refused(verb("evaluate", "runs/absent"), tmp_path, "runs/absent")
    refused(verb("predict", "runs/absent", "a.png"), tmp_path, r"runs/absent|a\.png")
    refused(verb("evaluate"), tmp_path, "RUN is missing")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--search.vary", "optimizer.lrr=1..2"], ["optimizer.lrr", "optimizer.lr"]),
        (["--search.vary", "optimizer.lr=1..0.1"], ["optimizer.lr", "empty"]),
        (["--search.space", "absent.yaml"], [r"absent\.yaml"]),
        (["--search.objective", "accuracy,speed"], ["search.objective", "speed", "accuracy, macro_f1"]),
        (["--search.vary", "model.name=cnn,inception_v3"], ["model.name", "inception_v3", "8 x 8"]),
        (["--search.vary", "data.batch=64,2048"], ["data.batch contains 2048", "1304 training images"]),
        (["--search.algorithm", "grid"], ["grid", "optimizer.lr is a range"]),
        (["--search.scheduler", "pbt", "--search.trials", "2"], ["pbt", "4 or more"]),
        (["--search.start_from", "absent"], ["absent", "not a finished search"]),
        (
            ["--data.validation", "0", "--train.keep", "last"],
            ["no validation images to compare trials by", "--data.validation"],
        ),
        (["--resume", "runs/absent"], ["runs/absent"]),
    ],
)
def test_bad_search(here, tmp_path, words, says):
    refused(here("tune", *words), tmp_path, *says)


@pytest.mark.usefixtures("joined")
def test_search_too_large_for_the_cluster(verb, tmp_path):
    refused(verb("tune", "--workers.count", "1000"), tmp_path, "1000", "cluster has")


def test_unreachable_cluster(verb, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    refused(verb("train", "--workers.count", "2"), tmp_path, r"RAY_ADDRESS is 127\.0\.0\.1:9", "unset it")
