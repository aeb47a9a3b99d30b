"""Checksums of the archives that `torch.save` writes: torch itself reads past them."""

import logging
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch

__all__ = ["Checksums", "damaged_record"]

logger = logging.getLogger(__name__)

_STORAGE = re.compile(r"[^/]+/data/\d+")  # a record that holds the bytes of one storage
_LOCAL_HEADER = 30  # bytes, before the record's name


def damaged_record(path: Path) -> str | None:
    """What is wrong with an archive apart from the bytes of its storages, which may be many; None if nothing is.

    Raises:
        zipfile.BadZipFile: if its directory makes no sense.
    """
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        for record in records:
            if record.compress_type != zipfile.ZIP_STORED:
                return f"its record {record.filename} is compressed"
            if not _STORAGE.fullmatch(record.filename) and _have_checksums(records):
                archive.read(record)  # raises if the checksum is another
    return None


def _have_checksums(records: Sequence[zipfile.ZipInfo]) -> bool:
    """False where they were saved without (`torch.serialization.set_crc32_options`): all are 0 then, not one of them."""
    return any(record.CRC for record in records) or not any(record.file_size for record in records)


class Checksums:
    """Compares the storages of an archive that is mapped into memory with its checksums, each when it is read anyway.

    torch does not say which record a storage came from. But all records lie in memory as they do in the file, so the k-th
    storage is the k-th record, and the distance between their addresses is the same for all.

    Args:
        path: the archive.
        storages: all that `torch.load` mapped, in any order.

    Raises:
        ValueError: if they are not what the archive's directory says.
    """

    def __init__(self, path: Path, storages: Sequence[torch.UntypedStorage]) -> None:
        self._path = path
        sizes = {storage.data_ptr(): storage.nbytes() for storage in storages if storage.nbytes()}
        sizes.pop(0, None)  # of tensors without data
        records = _storage_records(path)
        mapped = sorted(sizes.items())
        if [size for _, size in mapped] != [record.file_size for _, record in records]:
            raise ValueError("its records are not those of its tensors")
        pairs = list(zip(mapped, records, strict=True))
        if len({address - start for (address, _), (start, _) in pairs}) > 1:
            raise ValueError("its records do not lie where its directory says")
        with zipfile.ZipFile(path) as archive:
            is_checked = _have_checksums(archive.infolist())
        self._unread = {address: record for (address, _), (_, record) in pairs} if is_checked else {}
        if not is_checked:
            logger.warning("'%s' was saved without checksums, so damage to its numbers cannot be seen.", path)

    def check(self, tensor: torch.Tensor) -> None:
        """Reads the storage that a tensor belongs to; once, and not at all if it is of another archive.

        Raises:
            ValueError: if its checksum is another than the archive's.
        """
        storage = tensor.untyped_storage()
        record = self._unread.pop(storage.data_ptr(), None)
        if record is None:
            return
        content = torch.empty(0, dtype=torch.uint8).set_(storage)
        if zlib.crc32(content.numpy()) != record.CRC:
            raise ValueError(
                f"'{self._path}' is damaged: the checksum of its record {record.filename} is another than when it was "
                "saved; download it again."
            )


def _storage_records(path: Path) -> list[tuple[int, zipfile.ZipInfo]]:
    """The records that hold storages, in their order, each with the offset of its first byte."""
    records = []
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for record in archive.infolist():
            if _STORAGE.fullmatch(record.filename) and record.file_size:
                file.seek(record.header_offset + 26)
                name_length, extra_length = struct.unpack("<HH", file.read(4))
                start = record.header_offset + _LOCAL_HEADER + name_length + extra_length
                records.append((start, record))
    return sorted(records, key=lambda entry: entry[0])
