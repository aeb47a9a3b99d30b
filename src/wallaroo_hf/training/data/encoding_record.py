"""What a folder of encoded rows says about itself, so that it is never trained on with another image tokenizer."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...families.registry import kit_of
from ...files.parsing import parse_json
from ...files.whole import new_file
from ..datasets import ENCODING_RECORD

__all__ = ["EncodingRecord", "check_encoded", "is_encoded"]


@dataclass(frozen=True)
class EncodingRecord:
    """What a folder of encoded rows says about itself (`wallaroo_encoding.json`).

    Attributes:
        tokenizer: fingerprint of the image tokenizer.
        image_token_size: edge of a code in pixels.
        buckets: the sizes that pictures without one were given, `(height, width)`.
        source: what was encoded, in words.
        num_rows: how many rows that has; None for streams.
        rows_per_shard, batch_size: how it was cut up; a continued run must cut it the same way.
        version: of this record.
    """

    tokenizer: str
    image_token_size: int
    buckets: list[list[int]]
    source: str
    num_rows: int | None
    rows_per_shard: int
    batch_size: int
    version: int = 1

    @classmethod
    def read(cls, folder: str | Path) -> "EncodingRecord":
        """Reads the record of a folder.

        Raises:
            ValueError: if there is none that this version understands.
        """
        try:
            data = parse_json((Path(folder) / ENCODING_RECORD).read_text(encoding="utf-8"))
            return cls(**data)
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(
                f"'{folder}' has no readable {ENCODING_RECORD} ({error}); encode the data again with `wallaroo encode`."
            ) from error


def is_encoded(folder: str | Path) -> bool:
    """Whether a folder was written by [`encode_rows`]."""
    return (Path(folder) / ENCODING_RECORD).exists()


def check_encoded(folder: str | Path, codec: Any, processor: Any = None) -> None:
    """Raises unless encoded rows can be trained on with this image tokenizer.

    Args:
        folder: of the rows.
        codec: the image tokenizer.
        processor: if given, the sizes that it would choose must be those that were chosen.

    Raises:
        ValueError: for another tokenizer or other sizes, or if encoding has not come to its end.
    """
    record = EncodingRecord.read(folder)
    if not (Path(folder) / "state.json").exists():
        raise ValueError(f"The encoded data in '{folder}' is not complete; run the same `wallaroo encode` again.")
    encoder = kit_of(codec, "encode").encoder(codec, processor)
    if record.tokenizer != encoder.fingerprint:
        raise ValueError(
            f"The data in '{folder}' was encoded by another image tokenizer than this checkpoint's; its codes would mean "
            "something else. Encode the data again with this checkpoint."
        )
    if processor is not None and (encoder.size_multiple, encoder.sizes) != (record.image_token_size, record.buckets):
        raise ValueError(
            f"The data in '{folder}' was encoded for other image sizes ({shortened(record.buckets)}) than are trained now "
            f"({shortened(encoder.sizes)}); encode it again for these."
        )


def write_json(path: Path, data: Any) -> None:
    """Writes a file that appears whole or not at all."""
    with new_file(path) as partial:
        partial.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def shortened(value: Any) -> str:
    """A value in words, for messages."""
    text = str(value)
    return text if len(text) < 80 else f"{text[:77]}..."
