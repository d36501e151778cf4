"""What was found, in sentences and as plain data."""

from collections.abc import Sequence
from typing import Any

from classifier.drift.expected_accuracy import Estimate
from classifier.drift.measure import Drift
from classifier.inference.reference import Reference
from classifier.text import show

KINDS = {
    "shares": "class shares",
    "outputs": "model outputs",
    "features": "features",
    "novelty": "out-of-distribution score",
    "columns": "columns",
}
FEW_REFERENCES = 200
MIN_P = 1e-6


def format_p(p: float) -> str:
    """Return "= 0.012", or "< 1e-06": beyond that a p-value is no more than an approximation."""
    return f"= {p:.2g}" if p >= MIN_P else f"< {MIN_P:g}"


def is_alarm(drift: Drift, min_drop: float) -> bool:
    """Return whether there is drift that matters: min_drop is by how much the expected accuracy must fall, 0 to 1.

    Where too few images tell no accuracy, any drift matters.
    """
    drop = drift.expected_drop
    return drift.is_found and (min_drop == 0 or drop is None or drop >= min_drop)


def describe_reference(reference: Reference) -> str:
    """Say in a line what the images are compared with."""
    kinds = {
        "validation": "validation images",
        "folds": "training images, each as the model of another fold sees it",
        "test": "test images, as the model was trained on all others",
    }
    few = f"; with fewer than {FEW_REFERENCES} only large drift is found" if len(reference) < FEW_REFERENCES else ""
    return f"compared with {len(reference):,} {kinds[reference.source]}{few}"


def describe_drift(drift: Drift, class_names: Sequence[str]) -> list[str]:
    """Say what was found, in a few lines, the conclusion first."""
    lines = [describe_conclusion(drift)]
    lines += [f"  {describe_test(drift, test.kind, class_names)}" for test in drift.found]
    lines += [describe_accuracy(drift)]
    return lines


def describe_conclusion(drift: Drift) -> str:
    """Say whether there is drift."""
    images = f"{drift.images:,} images"
    if drift.is_found:
        return f"drift: {images} differ from the reference (p {format_p(drift.p)}, level {drift.level:g} for all tests)"
    return f"no drift found: {images}, p {format_p(drift.p)}, level {drift.level:g} for all tests"


def describe_test(drift: Drift, kind: str, class_names: Sequence[str]) -> str:
    """Say what a group of tests found."""
    test = next(one for one in drift.tests if one.kind == kind)
    text = f"{KINDS[kind]} (p {format_p(test.adjusted)})"
    if kind == "shares":
        k = list(class_names).index(test.worst)
        expected, observed = drift.shares.expected_K[k], drift.shares.observed_K[k]
        text += f": mean output of {show(test.worst)} {observed:.1%}, expected {expected:.1%}"
        if drift.shift is not None:
            shift = drift.shift
            text += f"; its share is about {shift.shares_K[k]:.1%} ({shift.low_K[k]:.1%} to {shift.high_K[k]:.1%})"
        return text
    return text + (f": most of all {show(test.worst)}" if kind in ("outputs", "columns") else "")


def describe_accuracy(drift: Drift) -> str:
    """Say what accuracy is to be expected, and on what that rests."""
    if drift.accuracy is None:
        return "expected accuracy: too few images to tell"
    accuracy = drift.accuracy
    text = (
        f"expected accuracy {accuracy.value:.1%}, {accuracy.reference:.1%} on the reference: by confidence "
        f"{_format(accuracy.confidence)}, by thresholded confidence {_format(accuracy.threshold)}"
    )
    if accuracy.transport:
        text += f", at the class shares of the training {_format(accuracy.transport)}"
    return text + ("" if accuracy.do_agree else "; these disagree: label some of these images")


def _format(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"


def to_document(
    drift: Drift, reference: Reference, class_names: Sequence[str], ids: Sequence[str], notes: Sequence[str]
) -> dict[str, Any]:
    """Return what was found as plain data, for drift.json."""
    shift, shifted, accuracy = drift.shift, drift.shifted, drift.accuracy
    shares = [
        {
            "class": name,
            "expected_output": float(drift.shares.expected_K[k]),
            "output": float(drift.shares.observed_K[k]),
            "p": float(drift.shares.p_K[k]),
            "training_share": float(reference.shares[k]),
            "share": None if shift is None else float(shift.shares_K[k]),
            "interval": None if shift is None else [float(shift.low_K[k]), float(shift.high_K[k])],
        }
        for k, name in enumerate(class_names)
    ]
    estimates = (
        None
        if accuracy is None
        else {
            "value": accuracy.value,
            "reference": accuracy.reference,
            "confidence": accuracy.confidence._asdict(),
            "threshold": accuracy.threshold._asdict(),
            "transport": None if accuracy.transport is None else accuracy.transport._asdict(),
            "do_agree": accuracy.do_agree,
        }
    )
    return {
        "is_found": drift.is_found,
        "p": drift.p,
        "level": drift.level,
        "images": drift.images,
        "reference": {"images": len(reference), "source": reference.source},
        "tests": [test._asdict() for test in drift.tests],
        "shares": shares,
        "accuracy_at_shares": None if shifted is None else shifted._asdict(),
        "expected_accuracy": estimates,
        "drove": [ids[row] for row in drift.drove],
        "notes": [*notes],
    }
