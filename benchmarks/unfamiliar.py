"""Does the model tell pictures that are unlike the photographs it was trained on?

    python benchmarks/unfamiliar.py --model finished --photographs path/to/CQ100/img \
        --kinds path/to/kinds

False alarms: the share of photographs that are called unfamiliar, of the examples and each folder
of `--photographs`, as they are and degraded at level 3; what CQ100 holds beside photographs is left
out. Catches: the share of unfamiliar pictures that are called so, by kind: those that
`unfamiliar_pictures.py` draws, and those of `--kinds`, a folder with a folder of pictures for each
kind. The model must have been fitted: `python -m pfd_iqa_hf.training.familiarity --help`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from measured_model import add_model_arguments, describe, load_pipeline, write_result
from pfd_iqa_hf.data.distortions import distort
from photographs import EXAMPLES, NOT_PHOTOGRAPHS, pictures_in
from unfamiliar_pictures import GENERATED_KINDS, generated

DEGRADATIONS = ("gaussian_blur", "jpeg", "white_noise")
LEVEL = 3
SHORT_SIDE = 512


def main() -> None:
    """Flags all pictures, prints the shares, writes them with the names of the mistaken ones."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photographs", nargs="*", type=Path, default=[], metavar="DIR")
    parser.add_argument("--kinds", type=Path, metavar="DIR", help="kind/*.png and so on")
    parser.add_argument("--count", type=int, default=20, help="drawn pictures of each kind")
    parser.add_argument("--views", help="view strategy; default: the checkpoint's")
    parser.add_argument("--batch-size", type=int, default=8)
    add_model_arguments(parser)
    arguments = parser.parse_args()

    assess = load_pipeline(arguments)
    config: Any = assess.model.config
    if not config.familiarity_directions:
        raise SystemExit(
            "this model cannot tell unfamiliar pictures: fit it with "
            "`python -m pfd_iqa_hf.training.familiarity`"
        )
    settings: dict[str, Any] = {"batch_size": arguments.batch_size}
    if arguments.views:
        settings["view_strategy"] = arguments.views

    def flagged(pictures: Iterable[Image.Image]) -> list[bool]:
        return ["unfamiliar" in result for result in assess(iter(pictures), **settings)]

    result: dict[str, Any] = {
        **describe(arguments),
        "threshold": config.familiarity_threshold,
        "degraded_level": LEVEL,
        "false_alarms": {},
        "caught": {},
    }
    for folder in [EXAMPLES, *arguments.photographs]:
        files = [file for file in pictures_in(folder) if file.stem not in NOT_PHOTOGRAPHS]
        for degradation in (None, *DEGRADATIONS):
            flags = flagged(opened(files, degradation))
            name = f"{folder.parent.name}/{folder.name}, {degradation or 'as they are'}"
            result["false_alarms"][name] = told(files, flags, wrong=True)
            print(f"false alarms, {name}: {sum(flags)} of {len(flags)}", flush=True)
    for kind in sorted(GENERATED_KINDS):
        drawn = flagged(generated(kind, seed) for seed in range(arguments.count))
        names = [Path(str(seed)) for seed in range(arguments.count)]
        result["caught"][f"drawn: {kind}"] = told(names, drawn, wrong=False)
        print(f"caught, drawn: {kind}: {sum(drawn)} of {len(drawn)}", flush=True)
    for folder in sorted(arguments.kinds.iterdir()) if arguments.kinds else []:
        files = pictures_in(folder) if folder.is_dir() else []
        if files:
            flags = flagged(opened(files))
            result["caught"][f"found: {folder.name}"] = told(files, flags, wrong=False)
            print(f"caught, found: {folder.name}: {sum(flags)} of {len(flags)}", flush=True)
    write_result(arguments, "unfamiliar", result)


def opened(files: list[Path], degradation: str | None = None) -> Iterator[Image.Image]:
    """Each picture; degraded ones are brought to the size they are judged at first."""
    for seed, file in enumerate(files):
        with Image.open(file) as source:
            picture = source.convert("RGB")
        if degradation is not None:
            factor = min(1.0, SHORT_SIDE / min(picture.size))
            size = (round(picture.width * factor), round(picture.height * factor))
            smaller = picture.resize(size, Image.Resampling.BICUBIC)
            picture = distort(smaller, degradation, LEVEL, seed)
        yield picture


def told(files: list[Path], flags: list[bool], wrong: bool) -> dict[str, Any]:
    """The share of flagged pictures, and which have the flag that is the `wrong` one."""
    mistaken = [file.stem for file, flag in zip(files, flags, strict=True) if flag is wrong]
    return {"pictures": len(flags), "share": sum(flags) / len(flags), "mistaken": mistaken}


if __name__ == "__main__":
    main()
