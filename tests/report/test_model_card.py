"""The model card says how sure its scores are."""

import re

from classifier.report import run_page
from tests.report.run_files import write_run


def test_scores_have_intervals(tmp_path):
    run_page.write(write_run(tmp_path / "run", ["cat", "dog"]))
    card = (tmp_path / "run" / "model_card.md").read_text()
    assert re.search(r"Validation accuracy [\d.]+% on 60 images \(95 % confidence interval [\d.]+% to [\d.]+%\)", card)
    for name in ("cat", "dog"):
        assert re.search(rf"\| {name} \|( [\d.]+% \|){{3}} [\d.]+% to [\d.]+% \| \d+ \|", card)
