"""Values of columns, by name, to the numbers that a model sees; a row that cannot be used does not stop the others."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from classifier.data.columns.schema import IMAGE, ColumnSchema
from classifier.errors import DataError, list_few


class RowError(DataError):
    """A row of columns that cannot be used: unlike an unreadable image, it does not know the name of what it is of."""


Row: TypeAlias = Mapping[str, Any]
"""Values by the names of their columns. A column that it lacks is missing, as is one whose value is None or empty."""


def encode_rows(
    schema: ColumnSchema | None, rows: Sequence[Row | None], has_images: Sequence[bool]
) -> tuple[np.ndarray | None, dict[int, DataError]]:
    """Return columns_NF, float32, and by their numbers the DataErrors of rows that cannot be used, whose numbers are 0.

    The errors are RowErrors. columns_NF is None for a model without columns (schema None), which takes images alone.
    """
    if schema is None:
        found = [_explain_images_alone(row, has_image) for row, has_image in zip(rows, has_images, strict=True)]
        return None, {n: error for n, error in enumerate(found) if error}
    errors: dict[int, DataError] = {}
    try:
        columns_NF = schema.encode(rows, has_images)
    except DataError:  # of the first row that cannot be used
        columns_NF = np.zeros((len(rows), schema.width), np.float32)
        for n, row in enumerate(rows):
            try:
                columns_NF[n] = schema.encode([row], [has_images[n]])[0]
            except DataError as error:
                errors[n] = RowError(str(error).removeprefix("row 1: "))
    is_empty_N = np.isnan(columns_NF[:, IMAGE + 1 :]).all(1)
    for n in np.flatnonzero(is_empty_N & ~np.array(has_images, bool)).tolist():
        names = list_few(schema.names)
        errors[n] = RowError(f"there is neither an image nor a value of a column ({names}): give one of them")
    columns_NF[list(errors)] = 0
    return columns_NF, errors


def _explain_images_alone(row: Row | None, has_image: bool) -> DataError | None:
    if row:
        return RowError("the model takes images alone, and no columns: leave these out")
    return None if has_image else RowError("there is no image, and the model takes nothing else: give one")
