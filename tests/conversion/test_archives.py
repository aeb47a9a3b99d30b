"""Damage inside archives of `torch.save`: seen, or without consequence."""

import random
import shutil
import zipfile

import pytest
import torch

from wallaroo_hf.conversion.released_files import load_tensors

TENSORS = {
    "shared": torch.arange(4000.0).view(40, 100),
    "single": torch.randn(1000, generator=torch.Generator().manual_seed(1)),
    "half": torch.ones(500, dtype=torch.bfloat16),
    "empty": torch.empty(0, 4),
    "scalar": torch.tensor(3.0),
}
TENSORS["view"] = TENSORS["shared"][3:5, ::2]


@pytest.fixture
def archive(tmp_path):
    """Tensors beside other things with storages of their own, as a training run saves them."""
    path = tmp_path / "run.ckpt"
    torch.save({"epoch": 3, "optimizer": {"moments": [torch.ones(77)]}, "state_dict": TENSORS}, path)
    return path


def read(path):
    """All tensors, each compared with its checksum."""
    tensors = load_tensors(path, ("state_dict",), "checkpoint")
    for tensor in tensors.values():
        tensors.checksums.check(tensor)
    return tensors


def equal(tensors):
    return list(tensors) == list(TENSORS) and all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_whole_archives_are_read(archive, caplog):
    assert equal(read(archive)) and not caplog.records


def test_no_flipped_bit_changes_a_weight(archive, tmp_path):
    """Anywhere in the file; flips outside of what is read change nothing."""
    data, choose = archive.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(400):
        flipped, place = bytearray(data), choose.randrange(len(data))
        flipped[place] ^= 1 << choose.randrange(8)
        path = tmp_path / "flipped.ckpt"
        path.write_bytes(flipped)
        try:
            tensors = read(path)
        except ValueError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            assert equal(tensors), place
    assert refused > 200


def test_a_flip_in_every_record(archive, tmp_path):
    """Storages are compared when they are read, everything else when the archive is opened; what is never read, never."""
    with zipfile.ZipFile(archive) as opened:
        records = [record for record in opened.infolist() if record.file_size]
    data, storages = archive.read_bytes(), 0
    for record in records:
        start = record.header_offset + 30 + int.from_bytes(data[record.header_offset + 26 :][:2], "little")
        start += int.from_bytes(data[record.header_offset + 28 :][:2], "little")
        flipped = bytearray(data)
        flipped[start] ^= 1
        path = tmp_path / "flipped.ckpt"
        path.write_bytes(flipped)
        if record.filename.endswith("/data/0"):  # the optimizer's
            assert equal(read(path))
            continue
        with pytest.raises(ValueError, match=r"damaged"):
            read(path)
        if "/data/" in record.filename:
            storages += 1
            load_tensors(path, ("state_dict",), "checkpoint")  # its numbers are not read yet
    assert storages == 4


def test_one_pass(archive, monkeypatch):
    """A storage that several tensors share is compared once."""
    import zlib

    sizes = []
    real = zlib.crc32
    tensors = load_tensors(archive, ("state_dict",), "checkpoint")
    monkeypatch.setattr(zlib, "crc32", lambda content: sizes.append(content.nbytes) or real(content))
    for tensor in (*tensors.values(), *tensors.values()):
        tensors.checksums.check(tensor)
    assert sorted(sizes) == sorted(4 * n for n in (4000, 1000, 250, 1))


def test_archives_without_checksums_are_read_with_a_notice(tmp_path, caplog):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(TENSORS, tmp_path / "file.ckpt")
    finally:
        torch.serialization.set_crc32_options(before)
    assert equal(read(tmp_path / "file.ckpt"))
    assert "without checksums" in caplog.text


def test_compressed_archives_are_refused(archive, tmp_path):
    """torch takes the compressed bytes for numbers."""
    path = tmp_path / "packed.ckpt"
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(ValueError, match=r"compressed"):
        read(path)


def test_added_records_are_refused(archive, tmp_path):
    path = shutil.copy(archive, tmp_path / "more.ckpt")
    with zipfile.ZipFile(path, "a") as more:
        more.writestr("run/data/99", b"1234")
    with pytest.raises(ValueError, match=r"records are not those"):
        read(path)


def test_a_lost_checksum_hides_no_damage(archive, tmp_path):
    """Only archives without any checksum were saved so; a single one that is 0 is damage, too."""
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as opened:
        record = next(record for record in opened.infolist() if record.file_size == 16_000)
    entry = data.rindex(record.CRC.to_bytes(4, "little"))  # in the directory, behind all records
    data[entry : entry + 4] = bytes(4)
    path = tmp_path / "lost.ckpt"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"is damaged: the checksum"):
        read(path)
