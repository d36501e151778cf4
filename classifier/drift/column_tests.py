"""Tests of the columns beside the image."""

import numpy as np

from classifier.data.columns.schema import ColumnSchema
from classifier.drift.two_sample import compare_counts, compare_values


def compare_schema_columns(
    schema: ColumnSchema, reference_NF: np.ndarray, window_MF: np.ndarray
) -> tuple[dict[str, float], list[str]]:
    """Return the p-value of each column, as ColumnSchema encodes them, and notes on those that have none.

    Numbers and dates by the Kolmogorov-Smirnov test of their values, joined with a chi-squared test of how many are
    missing (Bonferroni); categories by a chi-squared test, in which a missing value is one of them.
    """
    tested: dict[str, float] = {}
    notes: list[str] = []
    for column, within in zip(schema.columns, schema.slices.values(), strict=True):
        values_NF, values_MF = reference_NF[:, within], window_MF[:, within]
        is_missing_N, is_missing_M = np.isnan(values_NF).all(1), np.isnan(values_MF).all(1)
        if column.kind == "text":
            notes.append(f"{column.name} is text, and is not compared")
        elif column.kind == "category":
            counts = [
                np.append((values == 1)[~is_missing].sum(0), is_missing.sum())
                for values, is_missing in ((values_NF, is_missing_N), (values_MF, is_missing_M))
            ]
            tested[column.name] = compare_counts(*counts)
        else:
            missing = [(one.sum(), (~one).sum()) for one in (is_missing_N, is_missing_M)]
            p = min(compare_values(values_NF[:, 0], values_MF[:, 0]), compare_counts(*missing))
            tested[column.name] = min(1.0, 2 * p)
    return tested, notes
