"""What the report says is proven."""

from classifier.report.run_page import splits_share_images


def test_shared_images_are_known_by_the_kind_of_finding() -> None:
    other = {"kind": "missing_class", "text": "test has no picture of 'cat'."}
    shared = {"kind": "duplicates_across", "text": "in any words"}
    assert splits_share_images({"findings": [other, shared]}, {})
    assert not splits_share_images({"findings": [other]}, {"findings": ["1 lies in train too, byte for byte: a."]})


def test_shared_images_in_runs_without_kinds_are_known_by_the_wording() -> None:
    assert splits_share_images({}, {"findings": ["2 pictures of test lie in train too, byte for byte: a.png, b.png."]})
    assert not splits_share_images({"loans": []}, {"findings": ["test has no picture of 'cat'."]})
    assert not splits_share_images({}, {})
