"""Images that are answered now, as a window."""

from collections.abc import Callable, Sequence

from classifier.answers.answering import answer_images
from classifier.answers.listing import ImageListing
from classifier.answers.rows import Columns
from classifier.bundle.inputs.column_rows import encode_rows
from classifier.bundle.predictor import Predictor
from classifier.data.decoding.image_file import DecodeError
from classifier.data.readers.file_bytes import read_image_bytes
from classifier.drift.window import Window, choose_rows
from classifier.errors import DataError
from classifier.text import show


def answer_window(
    predictor: Predictor,
    words: Sequence[str],
    limit: int,
    *,
    outside: bool = False,
    advance: Callable[[int], object] = lambda _: None,
) -> Window:
    """Answer the images that words name, at most `limit`, evenly spaced. DataError if there are too few.

    outside: lists may name images outside their folders.
    """
    schema = predictor.bundle.columns
    listing = ImageListing(words, outside=outside, columns=schema.names if schema else ())
    listed = list(listing)
    chosen = [listed[n] for n in choose_rows(len(listed), limit)]
    name, notes = " ".join(words), listing.notes
    if not chosen:
        raise DataError(f"{name} has no images: give a folder, a table or a log of answers")
    if len(chosen) < len(listed):
        notes.append(f"{len(chosen):,} of {len(listed):,} images are answered, evenly spaced (--limit)")
    answers = answer_images(predictor, chosen, Columns(1), advance)
    read = [image for n, image in enumerate(chosen) if n not in answers.errors]
    if answers.errors:
        first, reason = next(iter(answers.errors.items()))
        notes.append(f"{len(answers.errors):,} images could not be read ({chosen[first].id}: {show(reason)})")
    judgement = answers.judgement

    def read_images(rows: Sequence[int]) -> list[bytes | None]:
        contents: list[bytes | None] = []
        for image in (read[row] for row in rows):
            try:
                contents.append(image.file and read_image_bytes(image.file, predictor.images.max_bytes))
            except DecodeError:
                contents.append(None)
        return contents

    columns_MF, _ = encode_rows(schema, [image.row for image in read], [image.file is not None for image in read])
    return Window(
        name,
        [image.id for image in read],
        judgement.probabilities_NK,
        judgement.ood_scores_N,
        judgement.statistics_NF,
        columns_MF=columns_MF,
        read_images=read_images,
        notes=notes,
    )
