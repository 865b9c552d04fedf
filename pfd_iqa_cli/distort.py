"""`pfd-iqa distort`: degraded copies of pictures, by KADID's types and levels."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pfd_iqa_cli.messages import interrupts_raise

__all__ = ["distort"]

_SOME_FAILED = 1
_CANNOT_WRITE = 74


def distort(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Files, folders or patterns.", show_default=False),
    ],
    output_dir: Annotated[
        Path | None, typer.Option(help="Folder for the copies.", show_default=False)
    ] = None,
    type: Annotated[
        list[str] | None,
        typer.Option(
            help="Type, such as jpeg; may be repeated; all 25 if left out.", show_default=False
        ),
    ] = None,
    level: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            max=5,
            help="1 (barely visible) to 5 (severe); may be repeated; all five if left out.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Chooses noise, places and signs.")] = 0,
    sheet: Annotated[
        Path | None,
        typer.Option(help="Picture of all types and levels of the first PATH.", show_default=False),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Walk folders with all their sub-folders.")
    ] = False,
) -> int:
    """Write degraded copies as PNG: <picture>_<type>_<level>.png, in the folders of the pictures.

    Exit code: 0 all done; 1 some picture cannot be read or is too small; 64 wrong usage; 74 the
    output cannot be written.
    """
    from pfd_iqa_hf.data.contact_sheet import contact_sheet
    from pfd_iqa_hf.data.distortions import DISTORTION_TYPES, LEVELS
    from pfd_iqa_hf.data.distortions import distort as distorted
    from pfd_iqa_hf.modeling.picture_reading import open_picture
    from pfd_iqa_hf.scoring.find import find_pictures

    interrupts_raise()

    if output_dir is None and sheet is None:
        raise typer.BadParameter("give --output-dir, --sheet or both", param_hint="--output-dir")
    for name in type or ():
        if name not in DISTORTION_TYPES:
            choices = ", ".join(DISTORTION_TYPES)
            raise typer.BadParameter(f"{name!r} is not one of {choices}", param_hint="--type")
    pictures, barren = find_pictures(paths, recursive)
    for path in barren:
        print(f"no pictures in {path}", file=sys.stderr)
    if not pictures:
        raise typer.BadParameter("there is no picture to distort", param_hint="PATH")
    stems: dict[Path, str] = {}
    for found in pictures:
        other = stems.setdefault(found.place.with_suffix(""), found.path)
        if other != found.path and output_dir is not None:
            what = f"{other} and {found.path} would have copies of one name; rename one of them"
            raise typer.BadParameter(what, param_hint="PATH")
    failed = 0
    for number, found in enumerate(pictures):
        try:
            picture = open_picture(found.path)
            if sheet is not None and number == 0:
                contact_sheet(picture, seed=seed).save(sheet)
            for name in type or DISTORTION_TYPES if output_dir is not None else ():
                for strength in level or LEVELS:
                    copy = distorted(picture, name, strength, seed)
                    assert output_dir is not None
                    place = output_dir / found.place
                    place.parent.mkdir(parents=True, exist_ok=True)
                    copy.save(place.with_name(f"{place.stem}_{name}_{strength}.png"))
        except ImportError as error:
            raise typer.BadParameter(str(error), param_hint="--type") from error
        except ValueError as error:  # PictureError is one
            print(f"{found.path}: {error}", file=sys.stderr)
            failed += 1
        except OSError as error:
            print(f"cannot write: {error}", file=sys.stderr)
            return _CANNOT_WRITE
    return _SOME_FAILED if failed else 0
