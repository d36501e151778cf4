"""The columns as inputs of an exported graph: whether there is an image, and then each column's numbers by its name."""

import numpy as np

from classifier.data.columns.schema import IMAGE, ColumnSchema

HAS_IMAGE = "has_image"


def name_input(column: str) -> str:
    """Return the name of a column's input."""
    return f"column.{column}"


def widths_of_inputs(schema: ColumnSchema | None) -> dict[str, int]:
    """Return the inputs beside the image, in order, with their widths; none without a schema."""
    if schema is None:
        return {}
    return {HAS_IMAGE: 1} | {name_input(column.name): column.width for column in schema.columns}


def to_graph_inputs(schema: ColumnSchema, columns_NF: np.ndarray | None, count: int) -> dict[str, np.ndarray]:
    """Return the inputs beside `count` images, float32 N x width. columns_NF: None if all columns are missing."""
    if columns_NF is None:
        columns_NF = make_missing(schema, count)
    slices = {HAS_IMAGE: slice(IMAGE, IMAGE + 1)} | {name_input(name): one for name, one in schema.slices.items()}
    return {name: np.ascontiguousarray(columns_NF[:, one], np.float32) for name, one in slices.items()}


def make_missing(schema: ColumnSchema, count: int) -> np.ndarray:
    """Return columns_NF of images that have no columns."""
    columns_NF = np.full((count, schema.width), np.nan, np.float32)
    columns_NF[:, IMAGE] = 1
    return columns_NF
