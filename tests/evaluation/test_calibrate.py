"""The line on a calibration: counts in, sentence out."""

from typing import Any

import pytest

from classifier.bundle.bundle import Bundle
from classifier.evaluation.calibrate import describe_calibration
from classifier.metrics.decisions import Calibration


@pytest.mark.parametrize(
    ("images", "ece", "by_chance", "line"),
    [
        (162, 0.016, 0.03, "calibrated: temperature 1.50, expected calibration error 1.6% on 162 images"),
        (62, 0.016, 0.09, "calibrated: temperature 1.50; 62 images are too few to judge calibration"),
        (62, 0.25, 0.09, "calibrated: temperature 1.50, expected calibration error 25.0% on 62 images"),
        (16, 0.156, 0.2, "not calibrated: 16 images are too few to fit a temperature (it takes 30)"),
    ],
)
def test_calibration_is_not_judged_on_few_images(images, ece, by_chance, line):
    calibration = Calibration(images=images, temperature=1.5, target="recall 0.9", thresholds=(0.5, None))
    validation = {"ece": ece, "ece_by_chance": by_chance, "count": images, "accuracy": 0.98, "confidence": 0.98 - ece}
    fields: dict[str, Any] = dict.fromkeys(Bundle.__dataclass_fields__)
    fields |= {
        "scores": {"validation": validation},
        "calibration": calibration.as_dict(),
        "class_names": ("cat", "dog"),
    }
    assert describe_calibration(Bundle(**fields)) == f"{line}; thresholds for recall 0.9 (not reachable for dog)"
