"""Encoded rows as columns of a table."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..datasets import require_datasets

__all__ = ["as_table", "encoded_features"]

Arrays = Mapping[str, tuple[str, int]]  # columns of arrays: dtype and number of axes of each array


def encoded_features(arrays: Arrays) -> Any:
    """The columns of encoded rows, as `datasets.Features`; see [`wallaroo_hf.families.training_kit.RowEncoder`]."""
    datasets = require_datasets()
    text, integer = datasets.Value("string"), datasets.Value("int32")
    return datasets.Features(
        {
            "messages": [{"role": text, "content": [{"type": text, "text": text}]}],
            "images": [datasets.Image()],
            "height": integer,
            "width": integer,
            "task": text,
            "name": text,
            **{name: _nested_feature(datasets.Value(dtype), axes) for name, (dtype, axes) in arrays.items()},
        }
    )


def _nested_feature(value: Any, axes: int) -> Any:
    """A list of arrays of so many axes."""
    for _ in range(axes + 1):
        value = [value]
    return value


def as_table(entries: list[dict[str, Any]], schema: Any, arrays: Arrays) -> Any:
    """Rows as a `pyarrow.Table`; arrays go there as they are, which is ten times as fast as by way of lists."""
    import pyarrow as pa

    plain = [{**entry, **dict.fromkeys(arrays)} for entry in entries]
    table = pa.Table.from_pylist(plain, schema=schema)
    for name, (dtype, _) in arrays.items():
        field = schema.field(name)
        column = _nested_lists([entry[name] for entry in entries], np.dtype(dtype)).cast(field.type)
        table = table.set_column(schema.get_field_index(name), field, column)
    return table


def _nested_lists(rows: list[list[np.ndarray] | None], dtype: np.dtype) -> Any:
    """A `pyarrow` list of nested lists for each row's arrays; None stays null."""
    import pyarrow as pa

    arrays = [array for row in rows for array in row or ()]
    if not arrays:
        return pa.nulls(len(rows))
    nested = pa.array(np.concatenate([array.ravel() for array in arrays]).astype(dtype))
    for axis in reversed(range(arrays[0].ndim)):  # the innermost lists first
        lengths = [np.full(math.prod(array.shape[:axis]), array.shape[axis]) for array in arrays]
        nested = pa.ListArray.from_arrays(_offsets(np.concatenate(lengths)), nested)
    counts = np.array([len(row or ()) for row in rows])
    return pa.ListArray.from_arrays(_offsets(counts), nested, mask=pa.array([row is None for row in rows]))


def _offsets(lengths: np.ndarray) -> Any:
    import pyarrow as pa

    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
