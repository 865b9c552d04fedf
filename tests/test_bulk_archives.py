"""Archives are read in place; what tricks, lies or is cut in them costs itself alone."""

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from found_pictures import add_member, content_of, pictures_found, png_bytes

from pfd_iqa_hf.scoring.archives import archive_pictures


@pytest.mark.parametrize("packed", [False, True])
def test_archives_are_read_in_place_and_tricks_refused(packed: bool, two_pictures: Path) -> None:
    name = "a.tgz" if packed else "a.tar"
    with tarfile.open(two_pictures / name, "w:gz" if packed else "w") as archive:
        add_member(archive, "dir/x.png", png_bytes(3))
        add_member(archive, "dir/x.json", b"{}")
        add_member(archive, "dir/x.png", png_bytes(4))
        for bad in ("/etc/x.png", "../x.png", "a/../../x.png"):
            add_member(archive, bad, png_bytes())
        add_member(archive, "link.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add_member(archive, "hard.png", type=tarfile.LNKTYPE, linkname="dir/x.png")
        add_member(archive, "device.png", type=tarfile.CHRTYPE)
    before = sorted(two_pictures.iterdir())
    found = pictures_found(name)
    good, bad_ones = found[:2], found[2:]
    assert [p.path for p in good] == [f"{name}::dir/x.png", f"{name}::dir/x.png#2"]
    assert [content_of(p) for p in good] == [png_bytes(3), png_bytes(4)]
    assert len(bad_ones) == 6 and all("refused" in str(p.error) for p in bad_ones)
    assert all(".." not in p.place.parts and not p.place.is_absolute() for p in found)
    assert sorted(two_pictures.iterdir()) == before, "nothing is unpacked"


@pytest.mark.parametrize("cut", [100, 700, 1400, 2500])
@pytest.mark.parametrize("packed", [False, True])
def test_an_archive_that_ends_early_is_told(cut: int, packed: bool, two_pictures: Path) -> None:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for number in range(3):
            add_member(archive, f"{number}.png", np.random.default_rng(number).bytes(900))
    data = gzip.compress(whole.getvalue()) if packed else whole.getvalue()
    name = "cut.tgz" if packed else "cut.tar"
    (two_pictures / name).write_bytes(data[:cut])
    found = pictures_found(name, "8.png")
    assert found[-1].path == "8.png" and found[-1].error is None
    told = [p for p in found if p.path == name]
    assert len(told) == 1 and "damaged or incomplete" in str(told[0].error)


def test_a_broken_header_does_not_end_an_archive_silently(two_pictures: Path) -> None:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for number in range(3):
            add_member(archive, f"{number}.png", b"x" * 900)
    data = bytearray(whole.getvalue())
    data[1536 + 148 : 1536 + 156] = b"garbage!"  # the second member's checksum
    (two_pictures / "b.tar").write_bytes(data)
    found = pictures_found("b.tar")
    assert [p.path for p in found] == ["b.tar::0.png", "b.tar"]
    assert "after 1 pictures" in str(found[1].error)


def _with_size(size: int) -> bytes:
    """A tar archive of one good picture and one member that claims a size."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name in ("a.png", "b.png"):
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"abcd"))
    data = bytearray(file.getvalue())
    header = data[1024:1536]
    header[124:136] = (size % (1 << 96)).to_bytes(12, "big")
    header[124] = 0xFF if size < 0 else 0x80
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data[1024:1536] = header
    return bytes(data)


@pytest.mark.parametrize("size", [1 << 60, -512, -5, -1])
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_an_impossible_size_in_an_archive_ends_it(size: int, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"a{suffix}"
    data = _with_size(size)
    file.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    found = list(archive_pictures(str(file), lambda: open(file, "rb"), str(file)))
    assert [one.error is None for one in found] == [True, False]
    assert "damaged" in str(found[1].error)


def test_an_archive_cut_between_two_members_is_told(two_pictures: Path) -> None:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for number in range(3):
            add_member(archive, f"{number}.png", b"x" * 512)
    for name, members in (("two.tar", 2), ("all.tar", 3)):
        (two_pictures / name).write_bytes(whole.getvalue()[: 1024 * members])
        *found, last = pictures_found(name)
        assert len(found) == members and all(picture.error is None for picture in found)
        assert last.path == name and "the blocks of zeros at its end are missing" in str(last.error)


def test_a_refused_member_hides_neither_a_file_nor_another_archives(two_pictures: Path) -> None:
    for name in ("a.tar", "b.tar"):
        with tarfile.open(two_pictures / name, "w") as archive:
            add_member(archive, "x/../8.png", png_bytes())
            add_member(archive, "../../evil.png", png_bytes())
    found = pictures_found("a.tar", "b.tar", "8.png", "./8.png")
    assert len(found) == 5 and sum(picture.error is not None for picture in found) == 4
    assert found[-1].path == "8.png"
