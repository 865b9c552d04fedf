"""Nobody would notice labels on the wrong pictures, except by numbers that no paper reports."""

import os
import warnings
from pathlib import Path

import pytest
from known_set_folders import BUILDERS, Row, generated_rows, label_rows

from pfd_iqa_hf.data.distortions import DISTORTION_TYPES
from pfd_iqa_hf.data.known_sets import KNOWN_SETS, known_set
from pfd_iqa_hf.data.load import load_ratings
from pfd_iqa_hf.data.splits import check_leakage, official_split
from pfd_iqa_hf.data.table import DatasetError, RatingTable

few = pytest.mark.filterwarnings("ignore:.*cannot be compared:UserWarning")


def _load(layout: str, root: Path, rows: list[Row]) -> RatingTable:
    name, _, build = BUILDERS[layout]
    build(root, rows)
    return load_ratings(name.upper(), data_dir=root)


def _expected(layout: str, row: Row) -> float:
    """The label on 0 to 100 by the published scale, written out apart from the readers."""
    score = float(row["score"])
    return {
        "LIVE": 100 * (111.78 - score) / (111.78 + 2.65),
        "CSIQ": 100 * (1 - score),
        "TID2013": 100 * score / 9,
        "KADID-10k": 25 * (score - 1),
        "KonIQ-10k": 25 * (score - 1),
        "BIQ2021": 100 * score,
    }.get(BUILDERS[layout][0], score)


def _check(layout: str, table: RatingTable, rows: list[Row]) -> None:
    by_name = {"/".join(row["dis_img_path"].split("/")[-2:]).casefold(): row for row in rows}
    by_file = {row["dis_img_path"].rpartition("/")[2].casefold(): row for row in rows}
    assert len(table) == len(rows)
    assert not table.extra
    for rating in table:
        place = f"{rating.image.parent.name}/{rating.image.name}".casefold()
        row = by_name.get(place) or by_file[rating.image.name.casefold()]
        assert rating.image.is_file()
        assert rating.mos == pytest.approx(_expected(layout, row), abs=1e-6)
        original = row.get("ref_img_path", "").rpartition("/")[2].rpartition(".")[0]
        assert rating.reference_id == (original.casefold() or None)


@few
@pytest.mark.parametrize("layout", BUILDERS)
def test_rows_of_the_official_layout(layout: str, tmp_path: Path) -> None:
    rows = generated_rows(BUILDERS[layout][0])
    _check(layout, _load(layout, tmp_path, rows), rows)


@pytest.mark.slow
@pytest.mark.parametrize("layout", BUILDERS)
def test_every_row_of_the_published_label_file(layout: str, tmp_path: Path) -> None:
    name, file, _ = BUILDERS[layout]
    rows = [row for row in label_rows(file) if "/patches/" not in row["dis_img_path"]]
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        table = _load(layout, tmp_path, rows)
    _check(layout, table, rows)
    known = known_set(name)
    assert known is not None
    counted = [str(note.message) for note in notes if "cannot be compared" in str(note.message)]
    # The wheel lists 1,161 of LIVEC's rows; everything else is complete.
    assert len(counted) == (1 if name == "LIVEC" else 0)
    assert len(rows) == (known.rows - 1 if name == "LIVEC" else known.rows)


@few
def test_distortions_levels_and_deviations(tmp_path: Path) -> None:
    tables = {
        layout: _load(layout, tmp_path / layout, generated_rows(BUILDERS[layout][0]))
        for layout in ("LIVE", "CSIQ", "TID2013", "KADID-10k", "LIVEC", "KonIQ-10k")
    }
    kadid = tables["KADID-10k"]
    assert [r.distortion for r in kadid[:125:5]] == list(DISTORTION_TYPES)
    assert [r.level for r in kadid[:5]] == [1, 2, 3, 4, 5]
    assert kadid[0].mos_std == pytest.approx(0.25**0.5 * 25)  # 1 to 5 is 25 points a step
    assert {r.distortion for r in tables["LIVE"]} == {"jp2k", "jpeg", "wn", "gblur", "fastfading"}
    assert tables["CSIQ"][0].mos_std == pytest.approx(5.0)
    assert len({r.distortion for r in tables["CSIQ"]}) == 6
    assert len({r.distortion for r in tables["TID2013"]}) == 24
    assert tables["TID2013"][0].mos_std == pytest.approx(0.125 * 100 / 9)
    assert tables["LIVEC"][0].mos_std == pytest.approx(18.5)
    assert tables["KonIQ-10k"][0].mos_std == pytest.approx(12.5)


@few
def test_official_splits(tmp_path: Path) -> None:
    for layout in ("KonIQ-10k", "LIVEFB", "BIQ2021"):
        rows = generated_rows(layout)
        split = official_split(_load(layout, tmp_path / layout, rows))
        assert sorted([*split.train, *split.validation, *split.test]) == list(range(len(rows)))
        assert split.train and split.test
    with pytest.raises(DatasetError, match="no official split"):
        official_split(_load("SPAQ", tmp_path / "SPAQ", generated_rows("SPAQ")))


@few
@pytest.mark.parametrize("layout", BUILDERS)
def test_missing_and_extra_pictures_are_named(layout: str, tmp_path: Path) -> None:
    name = BUILDERS[layout][0]
    table = _load(layout, tmp_path, generated_rows(name))
    victim, other = table[0].image, table[1].image
    extra = victim.with_name(f"img_extra_9999{victim.suffix}")
    if layout != "LIVE":  # its folders hold unrated pictures
        extra.write_bytes(victim.read_bytes())
        with pytest.warns(UserWarning, match=f"1 pictures beside.*{extra.name}"):
            assert load_ratings(name, data_dir=tmp_path).extra == (extra,)
        extra.unlink()
    victim.unlink()
    other.unlink()
    if layout == "KonIQ-10k":  # the other size must not step in
        (tmp_path / "512x384").rename(tmp_path / "elsewhere")
    with pytest.raises(DatasetError) as caught:
        load_ratings(name, data_dir=tmp_path)
    assert len(caught.value.problems) == 2
    text = str(caught.value).casefold()
    assert victim.name.casefold() in text and other.name.casefold() in text
    skipped = load_ratings(name, data_dir=tmp_path, skip_bad=True)
    assert len(skipped.skipped) == 2
    assert len(skipped) == len(table) - 2


def test_names_whatever_their_case() -> None:
    for item in KNOWN_SETS:
        assert known_set(item.name.lower().replace("-", "")) is item
    assert known_set("clive") is known_set("LIVE Challenge") is known_set("livec")
    assert known_set("my.csv") is None


def test_a_name_without_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="--data-dir"):
        load_ratings("KonIQ-10k")
    with pytest.raises(DatasetError, match=r"no such folder"):
        load_ratings("KonIQ-10k", data_dir=tmp_path / "none")
    with pytest.raises(DatasetError, match=r"koniq10k_.*missing.*complete copy"):
        load_ratings("KonIQ-10k", data_dir=tmp_path)
    with pytest.raises(ValueError, match="own columns, range"):
        load_ratings("KonIQ-10k", data_dir=tmp_path, score_range=(1, 5))


@pytest.mark.parametrize(
    ("variable", "name", "count", "lowest", "highest"),
    [("LIVEC_DIR", "LIVEC", 1_162, 3.42, 92.432), ("BIQ2021_DIR", "BIQ2021", 12_000, 0.0, 100.0)],
)
def test_the_real_set(variable: str, name: str, count: int, lowest: float, highest: float) -> None:
    folder = os.environ.get(variable)
    if folder is None:
        pytest.skip(f"{variable} does not name a folder with {name}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = load_ratings(name, data_dir=folder)
    assert len(table) == count
    scores = [rating.mos for rating in table]
    assert min(scores) == pytest.approx(lowest, abs=0.001)
    assert max(scores) == pytest.approx(highest, abs=0.001)
    if name == "BIQ2021":
        split = official_split(table)
        assert (len(split.train), len(split.test)) == (10_000, 2_000)
        check_leakage(table, split)
