"""Scoring in a pipeline of processes: the same scores, and no picture that harms another."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pfd_iqa_hf.scoring.batches import BatchScorer, PreparedPicture
from pfd_iqa_hf.scoring.bulk import BulkModel, bulk_model, score_in_bulk
from pfd_iqa_hf.scoring.decoder_pool import DecoderPool
from pfd_iqa_hf.scoring.decoding import DecodingSettings
from pfd_iqa_hf.scoring.find import FoundPicture, find_pictures
from pfd_iqa_hf.scoring.folder import FolderScorer
from pfd_iqa_hf.scoring.path_set import PathSet
from pfd_iqa_hf.scoring.records import RECORD_FIELDS

SETTINGS = DecodingSettings("fast", 32, 64, 20_000_000)


class BrightnessScorer(BatchScorer):
    """Stands in for a model: the score of a picture is its mean, from 0 to 100."""

    def __init__(self, batch_size: int = 4) -> None:
        super().__init__(batch_size, SETTINGS.max_pixels, {"model": "mean", "version": "0"})
        self.threads: set[int] = set()

    def _inputs(self, picture: Image.Image) -> Any:
        raise NotImplementedError

    def _run(self, batch: Sequence[PreparedPicture], with_map: bool) -> list[Any]:
        self.threads.add(threading.get_ident())
        return [float(prepared.inputs.mean()) / 2.55 for prepared in batch]

    def _result(self, prepared: PreparedPicture, output: Any) -> Mapping[str, Any]:
        return {"score": output, "label": "fair", "uncertainty": 1.0}


def plain_model(batch_size: int = 4) -> BulkModel:
    """A pipeline's model that is quick and needs nothing."""
    return BulkModel(BrightnessScorer(batch_size), SETTINGS, lambda views, size: views)


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(SETTINGS, workers=2, seconds=60) as decoders:
        yield decoders


def _greys(folder: Path, count: int) -> list[FoundPicture]:
    for index in range(count):
        Image.new("L", (40, 50), index * 255 // count).save(folder / f"{index:03d}.png")
    return find_pictures([folder])[0]


def test_the_pipeline_and_the_way_for_few_pictures_agree(
    odd_pictures: dict[str, Path],
    broken_pictures: dict[str, tuple[Path, str]],
    tiny_checkpoint: Path,
) -> None:
    paths = [*odd_pictures.values(), *(path for path, _ in broken_pictures.values())]
    found, _ = find_pictures(paths[::2] + paths[1::2])
    scorer = FolderScorer(str(tiny_checkpoint), "cpu", batch_size=5)
    expected = list(scorer.score(found))
    model = bulk_model(scorer)
    with DecoderPool(model.settings, workers=2) as pool:
        results = list(score_in_bulk(model, pool, iter(found), lanes=2))
    for result, record in zip(results, expected, strict=True):
        for key in ("score", "uncertainty"):
            assert result.record[key] == pytest.approx(record[key], abs=0.01)
        same = ("path", "label", "width", "height", "error", "model_sha256", "version")
        assert {k: result.record[k] for k in same} == {k: record[k] for k in same}
        assert (result.view is None) == (record["error"] is not None)


def test_results_come_in_order_from_several_lanes(tmp_path: Path, pool: DecoderPool) -> None:
    found = _greys(tmp_path, 60)
    model = plain_model()
    results = list(score_in_bulk(model, pool, found, lanes=3))
    assert [result.record["path"] for result in results] == [picture.path for picture in found]
    for index, result in enumerate(results):
        assert result.record["score"] == pytest.approx(index * 255 // 60 / 2.55, abs=1e-4)


def test_inputs_are_read_no_further_than_needed(tmp_path: Path, pool: DecoderPool) -> None:
    Image.new("L", (40, 50)).save(tmp_path / "a.png")
    taken = 0

    def endless() -> Iterator[FoundPicture]:
        nonlocal taken
        while True:
            taken += 1
            yield FoundPicture(str(tmp_path / "a.png"), Path("a.png"))

    results = score_in_bulk(plain_model(4), pool, endless(), lanes=2)
    for _ in range(40):
        next(results)
    assert taken < 40 + 50
    results.close()


def _break_pillow(what: str, word: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let decoding processes do `what` when Pillow opens a file with `word` in its name."""
    (folder / "broken").mkdir()
    (folder / "broken" / "sitecustomize.py").write_text(
        "import os, time\nfrom PIL import Image\nwhole = Image.open\n"
        "def opened(file, *a):\n"
        f"    {what} if {word!r} in os.path.basename(str(file)) else None\n"
        "    return whole(file, *a)\n"
        "Image.open = opened\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder / "broken"))


def test_a_picture_that_never_ends_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A library that never comes back from some file.
    _break_pillow("time.sleep(600)", "endless", tmp_path, monkeypatch)
    for name in ("white.png", "endless.png"):
        Image.new("L", (40, 50), 255).save(tmp_path / name)
    found, _ = find_pictures([tmp_path / n for n in ("white.png", "endless.png")])
    with DecoderPool(SETTINGS, workers=1, seconds=8) as pool:
        results = list(score_in_bulk(plain_model(1), pool, found))
    errors = [result.record["error"] for result in results]
    assert len(errors) == 2 and errors[0] is None
    assert "longer than 8 s" in errors[1] and "--time-limit" in errors[1]


def test_a_killed_process_costs_nothing(tmp_path: Path) -> None:
    found = _greys(tmp_path, 30)
    with DecoderPool(SETTINGS, workers=2) as pool:
        results = score_in_bulk(plain_model(2), pool, found)
        first = next(results)
        killed = pool.process_ids
        for process in killed:
            os.kill(process, signal.SIGKILL)
        rest = list(results)
        assert len(pool.process_ids) == 2 and not set(killed) & set(pool.process_ids)
    assert all(result.record["error"] is None for result in (first, *rest))
    assert len(rest) == 29


def test_a_picture_that_crashes_its_process_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A library that crashes over some file: libc's abort.
    _break_pillow("os.abort()", "crash", tmp_path, monkeypatch)
    for name in ("a.png", "crash.png", "z.png"):
        Image.new("L", (40, 50), 255).save(tmp_path / name)
    with DecoderPool(SETTINGS, workers=1) as pool:
        found, _ = find_pictures([tmp_path])
        errors = [r.record["error"] for r in score_in_bulk(plain_model(1), pool, found)]
    assert errors[0] is errors[2] is None
    assert "ends the process" in errors[1]


def test_no_process_survives(tmp_path: Path) -> None:
    found = _greys(tmp_path, 3)
    with DecoderPool(SETTINGS, workers=2) as pool:
        list(score_in_bulk(plain_model(), pool, found))
        running = pool.process_ids
    for process in running:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_a_killed_parent_leaves_no_process(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pfd_iqa_onnx.scoring.decoder_pool import DecoderPool\n"
        "from pfd_iqa_onnx.scoring.decoding import DecodingSettings\n"
        "pool = DecoderPool(DecodingSettings('fast', 32, 64, 1000), 2, 5.0)\n"
        "print(*pool.process_ids, flush=True)\n"
        "assert not {'torch', 'transformers', 'pfd_iqa_hf'} & set(sys.modules)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = [int(number) for number in parent.stdout.readline().split()]
    parent.kill()
    parent.wait(60)
    parent.stdout.close()
    assert len(children) == 2
    deadline = time.monotonic() + 60
    while any(_runs(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(_runs(child) for child in children)


def _runs(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_paths_are_remembered_in_little_room() -> None:
    paths = PathSet()
    names = [f"photos/{number}.jpg" for number in range(70_000)]
    assert all(paths.add(name) for name in names)
    assert len(paths) == len(names)
    assert not any(paths.add(name) for name in names[::97])
    assert names[0] in paths and names[-1] in paths and "photos/x.jpg" not in paths
    assert sum(keys.nbytes for keys in paths._sorted) <= 8 * len(names)


def test_a_thumbnail_has_its_pictures_proportions() -> None:
    from io import BytesIO

    from pfd_iqa_hf.scoring.summary import thumbnail

    view = np.zeros((32, 32, 3), np.uint8)
    for size, expected in {
        (300, 200): (200, 133),
        (100, 400): (133, 200),
        (8, 8): (200, 200),
    }.items():
        data = thumbnail({"width": size[0], "height": size[1]}, view)
        assert data is not None and Image.open(BytesIO(data)).size == expected


def test_rows_of_any_engine_are_the_same(
    odd_pictures: dict[str, Path],
    broken_pictures: dict[str, tuple[Path, str]],
    tiny_checkpoint: Path,
) -> None:
    import pickle

    from pfd_iqa_hf.scoring.ray import RowScorer

    paths = [str(odd_pictures["plain.jpg"]), str(broken_pictures["text.jpg"][0])]
    expected = list(FolderScorer(str(tiny_checkpoint), "cpu").score(find_pictures(paths)[0]))
    scorer = RowScorer(str(tiny_checkpoint), "cpu")
    first = scorer({"path": np.array(paths)})
    # A worker that died is started again from what was pickled, loaded model or not.
    again = pickle.loads(pickle.dumps(scorer))
    assert len(pickle.dumps(scorer)) < 1000
    data = np.array([Path(path).read_bytes() for path in paths], object)
    scorer = RowScorer(str(tiny_checkpoint), "cpu", column="image", name_column="name")
    second = scorer({"image": data, "name": np.array(paths)})
    for rows in (first, again({"path": paths}), second):
        columns = rows.to_pydict()
        assert tuple(columns) == RECORD_FIELDS
        assert columns["error"] == [record["error"] for record in expected]
        assert columns["path"] == paths
        assert columns["score"][0] == pytest.approx(expected[0]["score"], abs=0.01)
        assert columns["score"][1] is None
        assert columns["levels"][0][0]["label"] == expected[0]["levels"][0]["label"]
