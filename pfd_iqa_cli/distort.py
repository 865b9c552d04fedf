"""`pfd-iqa distort`: degraded copies of pictures, by KADID's types and levels."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pfd_iqa_cli.messages import interrupts_raise, say
from pfd_iqa_cli.score_options import Recursive

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
    recursive: Recursive = False,
    card: Annotated[
        str | None,
        typer.Option(
            metavar="ORG/NAME",
            help="Write README.md, if there is none, and metadata.csv for the dataset of this "
            "name on the Hub.",
            show_default=False,
        ),
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(help="Of the pictures, for --card, such as cc0-1.0.", show_default=False),
    ] = None,
) -> int:
    """Write degraded copies as PNG: <picture>_<type>_<level>.png, in the folders of the pictures.

    Exit code: 0 all done; 1 some picture cannot be read or is too small; 64 wrong usage; 74 the
    output cannot be written.
    """
    from pfd_iqa_hf.data.contact_sheet import contact_sheet
    from pfd_iqa_hf.data.distortions import DISTORTION_TYPES, LEVELS
    from pfd_iqa_hf.data.distortions import distort as distorted
    from pfd_iqa_hf.modeling.picture_reading import PictureError, open_picture
    from pfd_iqa_hf.scoring.find import find_pictures
    from pfd_iqa_hf.scoring.saving import save_whole

    interrupts_raise()

    _check_card(card, license, output_dir)
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
                save_whole(contact_sheet(picture, seed=seed), sheet)
            for name in type or DISTORTION_TYPES if output_dir is not None else ():
                for strength in level or LEVELS:
                    copy = distorted(picture, name, strength, seed)
                    assert output_dir is not None
                    place = output_dir / found.place
                    place.parent.mkdir(parents=True, exist_ok=True)
                    save_whole(copy, place.with_name(f"{place.stem}_{name}_{strength}.png"))
        except ImportError as error:
            raise typer.BadParameter(str(error), param_hint="--type") from error
        except ValueError as error:  # PictureError is one
            named = isinstance(error, PictureError)  # which begins with the picture's name
            print(error if named else f"{found.path}: {error}", file=sys.stderr)
            failed += 1
        except OSError as error:
            print(f"cannot write: {error}", file=sys.stderr)
            return _CANNOT_WRITE
    if card is not None and output_dir is not None and failed < len(pictures):
        try:
            _write_card(output_dir, card, license)
        except OSError as error:
            print(f"cannot write: {error}", file=sys.stderr)
            return _CANNOT_WRITE
    return _SOME_FAILED if failed else 0


def _check_card(card: str | None, license: str | None, output_dir: Path | None) -> None:
    """Refuse what cannot become a card, before any picture is degraded."""
    if card is None:
        if license is not None:
            raise typer.BadParameter("goes with --card", param_hint="--license")
        return
    if output_dir is None:
        raise typer.BadParameter("needs --output-dir", param_hint="--card")
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(card)
    except HFValidationError as error:
        raise typer.BadParameter(str(error), param_hint="--card") from error


def _write_card(folder: Path, name: str, license: str | None) -> None:
    from pfd_iqa_hf.hub.distortions_card import write_distortions_card

    written = folder / "README.md"
    if written.exists():
        say(f"{written} was kept; take it away to have it and metadata.csv written anew")
        return
    write_distortions_card(folder, name, license)
