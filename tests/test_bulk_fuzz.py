"""Thousands of broken and malicious files: none crashes, hangs or fills the machine."""

import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin, features

from pfd_iqa_hf.scoring.bulk import bulk_model, score_in_bulk
from pfd_iqa_hf.scoring.decoder_pool import DecoderPool
from pfd_iqa_hf.scoring.find import FoundPicture
from pfd_iqa_hf.scoring.folder import FolderScorer

MUTATIONS = 2000
LARGEST = 20_000_000  # pixels: an honest picture of so many takes a fraction of a second
CPU_SECONDS = 5.0
MEMORY = 2 << 30  # bytes
# What Pillow can write, and read again.
FORMATS: dict[str, dict[str, Any]] = {
    "AVIF": {},
    "BMP": {},
    "DDS": {},
    "DIB": {},
    "EPS": {},
    "GIF": {},
    "ICNS": {},
    "ICO": {},
    "IM": {},
    "JPEG": {},
    "JPEG2000": {},
    "MPO": {"save_all": True},
    "MSP": {},
    "PCX": {},
    "PDF": {},
    "PNG": {},
    "PPM": {},
    "QOI": {},
    "SGI": {},
    "SPIDER": {},
    "TGA": {},
    "TIFF": {"compression": "tiff_lzw"},
    "WEBP": {},
    "XBM": {},
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "GIF-animated": ("RGB", {}),
    "JPEG-cmyk": ("CMYK", {}),
    "JPEG-progressive": ("RGB", {"progressive": True}),
    "PNG-16": ("I;16", {}),
    "PNG-animated": ("RGB", {}),
    "PNG-palette": ("P", {}),
    "TIFF-deflate": ("RGB", {"compression": "tiff_deflate"}),
    "TIFF-jpeg": ("RGB", {"compression": "jpeg"}),
    "TIFF-packbits": ("RGB", {"compression": "packbits"}),
    "TIFF-raw": ("RGB", {}),
    "WEBP-lossless": ("RGB", {"lossless": True}),
}
CUTS = (0.02, 0.2, 0.5, 0.8, 0.97)


def _whole() -> dict[str, bytes]:
    """One small good file of each format."""
    rows, columns = np.mgrid[0:48, 0:64]
    pixels = np.stack([rows * 5, columns * 3, (rows * columns) % 251], -1).astype(np.uint8)
    picture = Image.fromarray(pixels)
    files: dict[str, bytes] = {}
    Image.init()
    for name, options in FORMATS.items():
        if name not in Image.SAVE or (name == "AVIF" and not features.check("avif")):
            continue
        mode = {"MSP": "1", "XBM": "1", "SPIDER": "F"}.get(name, "RGB")
        file = io.BytesIO()
        picture.convert(mode).save(file, name, **options)
        files[name] = file.getvalue()
    for name, (mode, options) in VARIANTS.items():
        if mode == "I;16":
            source = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
        else:
            source = picture.convert(mode)
        more = {"save_all": True, "append_images": [picture] * 2} if "animated" in name else {}
        file = io.BytesIO()
        source.save(file, name.split("-")[0], **options, **more)
        files[name] = file.getvalue()
    return files


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, *chunks: bytes, rows: bytes | None = None) -> bytes:
    head = _png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = zlib.compress((b"\0" + b"\x80" * 3 * width) * height) if rows is None else rows
    body = b"".join(chunks) + _png_chunk(b"IDAT", pixels) + _png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + body


def _hostile(whole: dict[str, bytes]) -> dict[str, bytes]:
    """Files made to harm: each must get an error, or be scored as what it also is."""
    bomb = zlib.compress(b"\0" * (200 << 20), 9)  # 200 MB in 200 kB
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    html = b"<!DOCTYPE html><html><body><img src=x onerror=alert(1)></body></html>"
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n(pwned) (w) file\n%%EOF\n"
    files = {
        "bomb-ztxt.png": _png(8, 8, _png_chunk(b"zTXt", b"k\0\0" + bomb)),
        "bomb-itxt.png": _png(8, 8, _png_chunk(b"iTXt", b"k\0\1\0\0\0" + bomb)),
        "bomb-iccp.png": _png(8, 8, _png_chunk(b"iCCP", b"k\0\0" + bomb)),
        "bomb-idat.png": _png(8, 8, rows=bomb),
        "bomb-many.png": _png(8, 8, *[_png_chunk(b"tEXt", b"k\0" + b"x" * 500)] * 4000),
        "huge.png": _png(2**31 - 1, 2**31 - 1, rows=b""),
        "wide.png": _png(2**31 - 1, 1, rows=b""),
        "zero.png": _png(0, 0),
        "empty-data.png": _png(4000, 4000, rows=b""),
        "picture.svg": svg,
        "picture.html": html,
        "script.eps": script,
        "script.jpg": script,
        "nulls.jpg": bytes(4096),
        "ones.png": b"\xff" * 4096,
        "nothing.gif": b"",
        "one-byte.png": b"\x89",
        "text.tif": b"This is no picture.",
        "zip.png": b"PK\x03\x04" + bytes(500),
        "pdf.png": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>",
        "polyglot-html.gif": whole["GIF"] + html,
        "polyglot-zip.png": whole["PNG"] + b"PK\x05\x06" + bytes(18),
        "polyglot-script.bmp": whole["BMP"][:54] + b"<script>" * 1152,
        "elf.jpg": b"\x7fELF" + bytes(500),
        "nested.jpg": whole["JPEG"][:2] + b"\xff\xe1\xff\xff" + b"Exif\0\0" * 10_000,
        "huge.bmp": whole["BMP"][:18] + struct.pack("<ii", 2**31 - 1, 2**31 - 1)
        + whole["BMP"][26:],
        "huge.ppm": b"P6 999999999 999999999 255\n",
        "huge.gif": whole["GIF"][:6] + b"\xff\xff\xff\xff" + whole["GIF"][10:],
        "huge.tga": whole["TGA"][:12] + b"\xff\xff\xff\xff" + whole["TGA"][16:],
        "huge.qoi": b"qoif" + struct.pack(">II", 2**31, 2**31) + b"\3\0" + bytes(8),
        "loop.tif": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
        "deep.tif": b"MM\0*\0\0\0\x08\xff\xff" + b"\x01\0\0\4\xff\xff\xff\xff\0\0\0\x08" * 500,
    }  # fmt: skip
    for name, value in {"xml": "x" * 100_000, "date": "9" * 5000}.items():
        notes = PngImagePlugin.PngInfo()
        notes.add_text(name, value, zip=True)
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=notes)
        files[f"notes-{name}.png"] = file.getvalue()
    return files


def _corpus(whole: dict[str, bytes], rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    names = list(whole)
    for index, (name, data) in enumerate(whole.items()):
        for cut in CUTS:
            yield f"cut-{cut}.{name.lower()}", data[: int(len(data) * cut)]
        for flips in (1, 8, 64):
            changed = np.frombuffer(data, np.uint8).copy()
            changed[rng.integers(0, len(data), flips)] ^= np.uint8(1 << rng.integers(0, 8))
            yield f"flipped-{flips}.{name.lower()}", changed.tobytes()
        yield f"wrong-suffix-{name}.{names[index - 1].lower()}", data
        yield f"twice.{name.lower()}", data + data
    yield from _hostile(whole).items()


def _mutated(whole: dict[str, bytes], rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    names = list(whole)
    for number in range(MUTATIONS):
        name = names[number % len(names)]
        data = bytearray(whole[name])
        for _ in range(int(rng.integers(1, 6))):
            # Half of the changes hit the first bytes, where the sizes and offsets stand.
            end = len(data) if rng.random() < 0.5 else min(len(data), 96)
            place = int(rng.integers(0, max(end, 1)))
            length = int(rng.integers(1, 9))
            kind = rng.integers(0, 4)
            if kind == 0:
                data[place : place + length] = rng.bytes(length)
            elif kind == 1:
                del data[place : place + length]
            elif kind == 2:
                data[place:place] = bytes([int(rng.choice([0, 0x7F, 0x80, 0xFF]))]) * length
            else:
                data[place : place + length] = b"\xff" * length
        yield f"mutation-{number}.{name.lower()}", bytes(data)


@pytest.fixture(scope="module")
def whole() -> dict[str, bytes]:
    return _whole()


def _peak_memory(process: int) -> int:
    with open(f"/proc/{process}/status") as stream:
        lines = dict(line.split(":", 1) for line in stream)
    return int(lines["VmHWM"].split()[0]) * 1024


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads peak memory from /proc")
def test_no_file_harms_the_run(
    whole: dict[str, bytes], tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # what a file makes a library write would land here
    rng = np.random.default_rng(11)
    corpus = list(_corpus(whole, rng))
    assert len(corpus) >= 300
    files = [*corpus, *_mutated(whole, rng)]

    def found() -> Iterator[FoundPicture]:
        for name, data in files:
            yield FoundPicture(name, Path(name), read=partial(bytes, data))

    scorer = FolderScorer(str(tiny_checkpoint), "cpu", batch_size=16, view_strategy="fast")
    scorer.max_pixels = LARGEST
    model = bulk_model(scorer)
    seconds: list[float] = []
    with DecoderPool(model.settings, workers=2, seconds=60) as pool:
        decode = pool._decode

        def timed(picture: FoundPicture) -> Any:
            decoded = decode(picture)
            seconds.append(decoded[1].seconds)
            return decoded

        monkeypatch.setattr(pool, "_decode", timed)
        first = set(pool.process_ids)
        records = [result.record for result in score_in_bulk(model, pool, found())]
        assert set(pool.process_ids) == first, "a file ended a process"
        assert max(_peak_memory(process) for process in first) < MEMORY
    assert max(seconds) < CPU_SECONDS
    assert [record["path"] for record in records] == [name for name, _ in files]
    for record in records:
        if record["error"] is None:
            assert 0 <= record["score"] <= 100 and np.isfinite(record["uncertainty"]), record
        else:
            assert record["score"] is None and "Traceback" not in record["error"]
            assert "longer than" not in record["error"], record
    by_name = {record["path"]: record["error"] for record in records}
    for name in _hostile(whole):
        if not name.startswith(("bomb-", "notes-", "polyglot-", "nested", "huge.gif")):
            assert by_name[name] is not None, name
    for name in whole:  # what a file is called decides nothing
        (wrong,) = [path for path in by_name if path.startswith(f"wrong-suffix-{name}.")]
        assert (by_name[wrong] is None) == (name not in ("EPS", "PDF")), wrong
    assert list(tmp_path.iterdir()) == [], "a file was written"


@pytest.mark.parametrize("name", ["script.eps", "huge.png", "picture.svg", "bomb-iccp.png"])
def test_hostile_files_on_disk_are_named_once(
    name: str, whole: dict[str, bytes], tmp_path: Path, tiny_checkpoint: Path
) -> None:
    (tmp_path / name).write_bytes(_hostile(whole)[name])
    Image.new("RGB", (30, 30)).save(tmp_path / "good.png")
    paths = [str(tmp_path / name), str(tmp_path / "good.png")]
    scorer = FolderScorer(str(tiny_checkpoint), "cpu", batch_size=2, view_strategy="fast")
    model = bulk_model(scorer)
    with DecoderPool(model.settings, workers=1, seconds=60) as pool:
        found = [FoundPicture(path, Path(name)) for path in paths]
        bad, good = (result.record for result in score_in_bulk(model, pool, found))
    assert good["error"] is None and good["score"] is not None
    if name != "bomb-iccp.png":
        assert bad["error"] is not None and bad["path"] == paths[0]


def test_truncated_pictures_are_never_padded() -> None:
    # A switch of Pillow that some libraries turn on: half a picture would get a score.
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_folders_that_lead_into_themselves_end(tmp_path: Path) -> None:
    from pfd_iqa_hf.scoring.inputs import InputOptions, find_inputs

    (tmp_path / "a").mkdir()
    Image.new("RGB", (30, 30)).save(tmp_path / "a" / "x.png")
    (tmp_path / "a" / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a" / "loop.png").symlink_to("loop.png")
    found = list(find_inputs([str(tmp_path)], InputOptions(recursive=True), []))
    names = [os.path.relpath(picture.path, tmp_path) for picture in found]
    assert names == ["a/loop.png", "a/x.png"]


def test_a_closed_output_ends_a_list_without_a_word(tmp_path: Path, tiny_checkpoint: Path) -> None:
    Image.new("RGB", (30, 30)).save(tmp_path / "x.png")
    command = [sys.executable, "-m", "pfd_iqa_cli", "score", "-", "--format", "jsonl"]
    options = ["--model", str(tiny_checkpoint), "--batch-size", "1", "--device", "cpu"]
    names = "".join(f"{tmp_path}/gone-{number}.png\n" for number in range(4000))
    (tmp_path / "list").write_text(f"{tmp_path}/x.png\n{names}")
    with open(tmp_path / "list") as given, open(tmp_path / "errors", "w+") as errors:
        process = subprocess.Popen(
            [*command, *options], stdin=given, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        assert process.stdout
        assert '"score": ' in process.stdout.readline()
        process.stdout.close()
        assert process.wait(120) == 141
        errors.seek(0)
        told = errors.read()
    assert "Traceback" not in told and "Exception ignored" not in told
