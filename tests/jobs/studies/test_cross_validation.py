"""The scores of a repeated cross-validation count each image once."""

import json

import pyarrow.parquet as pq

from classifier.bundle import bundle
from classifier.report import run_page
from jobs.studies.cross_validation import plan_runs, summarize
from tests.report.run_files import IMAGES, write_run


def test_repeats_do_not_make_scores_surer(tmp_path):
    """Three repeats of two folds have as many images as one."""
    folder, runs = write_run(tmp_path / "cv", ["cat", "dog"]), plan_runs(folds=2, repeats=3, seed=0)
    for run in runs:
        fold = write_run(folder / "folds" / run.name, ["cat", "dog"])
        bundle.update_scores(fold, "test", bundle.read(fold).scores["validation"])
        (fold / "validation.parquet").rename(fold / "predictions.parquet")
    summary = summarize(folder, runs)
    assert len(summary["accuracy"]["folds"]) == 6
    assert len(pq.read_table(folder / "predictions.parquet")) == 6 * IMAGES
    assert json.loads((folder / "scores.json").read_text())["count"] == 2 * IMAGES
    page = run_page.write(folder).read_text()
    assert f"on {2 * IMAGES} held-out images" in page
    assert "leaves an accuracy of" in page
    assert f"% on {round(0.8 * 2 * IMAGES)} images (" in page
