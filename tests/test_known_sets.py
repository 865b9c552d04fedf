"""A misread table or a leak between splits would make every number in the README worthless."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pfd_iqa_hf.data.known_sets import Rating, load_biq2021, load_livec, validation_split
from pfd_iqa_hf.data.table import DatasetError

pytestmark = pytest.mark.filterwarnings("ignore:.*cannot be compared:UserWarning")


def _picture(path: Path, color: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (color, color, color)).save(path, format="PNG")


@pytest.fixture
def biq2021(tmp_path: Path) -> Path:
    train = [("ss01 (1).jpg", "0.25"), ("ss02 (7).jpg", "0"), ("ss03 (3).JPG", "1")]
    test = [("ss03 (4).jpg", "0.7321")]
    for name, rows, extra in (("Train", train, ["", ""]), ("Test", test, [])):
        with (tmp_path / f"{name} (Images and MOS).csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["Image Name", "MOS", *extra])
            writer.writerows([*row, *extra] for row in rows)
    for color, name in enumerate(["ss01 (1).jpg", "ss02 (7).JPG", "ss03 (3).jpg", "ss03 (4).jpg"]):
        _picture(tmp_path / "Images" / name, color)
    return tmp_path


@pytest.fixture
def livec(tmp_path: Path) -> Path:
    savemat = pytest.importorskip("scipy.io").savemat
    names = [f"t{n}.bmp" for n in range(1, 8)] + ["100.bmp", "9.JPG"]
    cells = np.empty((len(names), 1), dtype=object)
    cells[:, 0] = names
    root = tmp_path / "ChallengeDB_release"
    (root / "Data").mkdir(parents=True)
    savemat(root / "Data" / "AllImages_release.mat", {"AllImages_release": cells})
    scores = np.arange(10.0, 10.0 + len(names))[None]
    savemat(root / "Data" / "AllMOS_release.mat", {"AllMOS_release": scores})
    savemat(root / "Data" / "AllStdDev_release.mat", {"AllStdDev_release": scores + 0.5})
    for number, name in enumerate(names):
        folder = root / "Images" / ("trainingImages" if name.startswith("t") else "")
        _picture(folder / name, number)
    return root


def test_biq2021_rows(biq2021: Path) -> None:
    images = biq2021 / "Images"
    almost: Any = pytest.approx(73.21)
    assert list(load_biq2021(biq2021)) == [
        Rating(images / "ss01 (1).jpg", 25.0, split="train", group="ss01"),
        Rating(images / "ss02 (7).JPG", 0.0, split="train", group="ss02"),
        Rating(images / "ss03 (3).jpg", 100.0, split="train", group="ss03"),
        Rating(images / "ss03 (4).jpg", almost, split="test", group="ss03"),
    ]


def test_biq2021_says_what_is_missing(biq2021: Path) -> None:
    (biq2021 / "Images" / "ss03 (4).jpg").unlink()
    with pytest.raises(DatasetError, match=r"Test.*row 2: picture 'ss03 \(4\)\.jpg' is missing"):
        load_biq2021(biq2021)
    (biq2021 / "Test (Images and MOS).csv").unlink()
    with pytest.raises(DatasetError, match=r"Test \(Images and MOS\)\.csv' is missing"):
        load_biq2021(biq2021)
    with pytest.raises(DatasetError, match="no such folder"):
        load_biq2021(biq2021 / "elsewhere")


@pytest.mark.parametrize("mos", ["1.5", "nan", "good", ""])
def test_biq2021_names_the_line_it_cannot_read(biq2021: Path, mos: str) -> None:
    table = biq2021 / "Test (Images and MOS).csv"
    table.write_text(f"Image Name,MOS\nss03 (4).jpg,{mos}\n")
    with pytest.raises(ValueError, match=r"Test .*row 2: .*(outside|not a number|no score)"):
        load_biq2021(biq2021)


def test_biq2021_refuses_a_picture_in_both_splits(biq2021: Path) -> None:
    (biq2021 / "Test (Images and MOS).csv").write_text("Image Name,MOS\nSS01 (1).jpg,0.5\n")
    with pytest.raises(DatasetError, match="listed a second time"):
        load_biq2021(biq2021)


def test_incomplete_copy_warns(biq2021: Path, livec: Path) -> None:
    with pytest.warns(UserWarning, match="12,000 rows, this copy lists 4"):
        load_biq2021(biq2021)
    with pytest.warns(UserWarning, match="1,162 rows, this copy lists 2"):
        load_livec(livec)


def test_livec_rows_leave_out_the_raters_introduction(livec: Path) -> None:
    expected = [
        Rating(livec / "Images" / "100.bmp", 17.0, mos_std=17.5),
        Rating(livec / "Images" / "9.JPG", 18.0, mos_std=18.5),
    ]
    assert list(load_livec(livec)) == expected
    assert list(load_livec(livec.parent)) == expected


@pytest.mark.parametrize("name", ["Data/AllMOS_release.mat", "Images/9.JPG"])
def test_livec_says_what_is_missing(livec: Path, name: str) -> None:
    (livec / name).unlink()
    with pytest.raises(DatasetError, match=Path(name).name):
        load_livec(livec)


@pytest.fixture
def make_ratings(tmp_path: Path) -> Callable[[str, int], list[Rating]]:
    def make(folder: str, count: int) -> list[Rating]:
        for number in range(count):
            _picture(tmp_path / folder / f"{number}.png", number)
        return [Rating(tmp_path / folder / f"{number}.png", number) for number in range(count)]

    return make


def test_validation_split_is_a_partition_of_the_asked_size(
    make_ratings: Callable[[str, int], list[Rating]],
) -> None:
    ratings = make_ratings("a", 40)
    training, validation = validation_split(ratings, 0.25, seed=0)
    assert len(validation) == 10
    assert sorted([*training, *validation], key=lambda rating: rating.mos) == ratings
    assert validation_split(ratings, 0.25, seed=1)[1] != validation


def test_validation_split_ignores_order_and_place(
    make_ratings: Callable[[str, int], list[Rating]],
) -> None:
    here, there = make_ratings("a", 30), make_ratings("b", 30)
    expected = {rating.mos for rating in validation_split(here, 0.3, seed=5)[1]}
    moved = validation_split(there[::-1], 0.3, seed=5)[1]
    assert {rating.mos for rating in moved} == expected


def test_equal_files_stay_on_one_side(
    make_ratings: Callable[[str, int], list[Rating]], tmp_path: Path
) -> None:
    ratings = make_ratings("a", 12)
    for rating in ratings:
        copy = tmp_path / f"copy of {rating.image.name}"
        shutil.copy(rating.image, copy)
        ratings = [*ratings, Rating(copy, rating.mos)]
    for seed in range(10):
        training, validation = validation_split(ratings, 0.5, seed)
        assert not {rating.mos for rating in training} & {rating.mos for rating in validation}


def test_pictures_of_one_reference_stay_on_one_side(
    make_ratings: Callable[[str, int], list[Rating]],
) -> None:
    ratings = [
        Rating(rating.image, rating.mos, reference_id=str(number % 5))
        for number, rating in enumerate(make_ratings("a", 20))
    ]
    for seed in range(10):
        training, validation = validation_split(ratings, 0.4, seed)
        references = [{rating.reference_id for rating in side} for side in (training, validation)]
        assert not references[0] & references[1]
        assert len(validation) == 8


def test_one_file_under_two_references_joins_both(
    make_ratings: Callable[[str, int], list[Rating]], tmp_path: Path
) -> None:
    ratings = [
        Rating(rating.image, rating.mos, reference_id=str(number % 6))
        for number, rating in enumerate(make_ratings("a", 18))
    ]
    copy = tmp_path / "copy.jpg"
    shutil.copy(ratings[0].image, copy)  # of reference 0, and said to be of reference 4
    ratings.append(Rating(copy, ratings[0].mos, reference_id="4"))
    for seed in range(10):
        training, _ = validation_split(ratings, 0.4, seed)
        assert len({"0", "4"} & {rating.reference_id for rating in training}) in (0, 2)


def test_validation_split_refuses_what_cannot_be_split(
    make_ratings: Callable[[str, int], list[Rating]],
) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        validation_split(make_ratings("a", 3), 10, seed=0)
    with pytest.raises(ValueError, match="cannot be split"):
        validation_split(make_ratings("a", 1), 0.5, seed=0)
