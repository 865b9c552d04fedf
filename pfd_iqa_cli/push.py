"""`pfd-iqa push`: a model with its code and card as a repository on the Hub."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pfd_iqa_cli.messages import CANNOT_WRITE, interrupts_raise, say
from pfd_iqa_cli.model_options import Model, prepare_libraries

if TYPE_CHECKING:
    from pfd_iqa_hf.hub.push import Published

__all__ = ["push"]

# As sysexits.h has them.
_UNREACHABLE = 69
_REFUSED = 77


def push(
    repo_id: Annotated[
        str, typer.Option(metavar="ORG/NAME", help="The repository.", show_default=False)
    ],
    model: Model = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(help="Keep the repository's files in this new folder.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build and check, list the files, upload nothing.")
    ] = False,
    results: Annotated[
        Path | None,
        typer.Option(
            help="Folder of predictions and plots; by default the model's own results/.",
            show_default=False,
        ),
    ] = None,
    onnx: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="ONNX file of the same weights; may be repeated.",
            show_default=False,
        ),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Create it as a private repository.")
    ] = False,
    revision: Annotated[
        str | None,
        typer.Option(help="Branch to commit to, made if there is none.", show_default=False),
    ] = None,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Open a pull request instead of committing.")
    ] = False,
    token: Annotated[
        str | None,
        typer.Option(help="Default: HF_TOKEN, or that of `hf auth login`.", show_default=False),
    ] = None,
) -> int:
    """Publish a model on the Hub, with its code, card, licences and results, in one commit.

    Exit code: 0 published, or nothing had changed; 64 wrong usage, or a model that cannot be
    published; 69 the Hub cannot be reached; 74 the folder cannot be written; 77 the Hub refused.
    """
    _check_usage(repo_id, output_dir, dry_run, results, onnx or [], revision, create_pr)
    prepare_libraries(None)
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    interrupts_raise()
    with tempfile.TemporaryDirectory() as temporary:
        folder = output_dir or Path(temporary) / "repository"
        _build(model, repo_id, folder, results, onnx or [])
        if dry_run:
            _list(folder)
            typer.echo(f"{repo_id} as it would be uploaded: {folder}")
            return 0
        return _upload(folder, repo_id, private, revision, create_pr, token)


def _check_usage(
    repo_id: str,
    output_dir: Path | None,
    dry_run: bool,
    results: Path | None,
    onnx: list[Path],
    revision: str | None,
    create_pr: bool,
) -> None:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    if dry_run and output_dir is None:
        raise typer.BadParameter(
            "it needs --output-dir, or nothing would be left to look at", param_hint="--dry-run"
        )
    if create_pr and revision not in (None, "main"):
        raise typer.BadParameter(
            "a pull request goes to the main branch; leave --revision out", param_hint="--create-pr"
        )
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise typer.BadParameter(str(error), param_hint="--repo-id") from error
    if results is not None and not (results.is_dir() and any(results.iterdir())):
        raise typer.BadParameter(
            f"{results} is no folder with files; give the folder that `pfd-iqa evaluate "
            "--output-dir` wrote",
            param_hint="--results",
        )
    names = [file.name for file in onnx]
    for file in onnx:
        if not file.is_file() or file.suffix != ".onnx":
            raise typer.BadParameter(
                f"{file} is no ONNX file; make one with `pfd-iqa export`", param_hint="--onnx"
            )
        if names.count(file.name) > 1:
            raise typer.BadParameter(
                f"two files are called {file.name}; rename one", param_hint="--onnx"
            )


def _build(
    model: str | None, repo_id: str, folder: Path, results: Path | None, onnx: list[Path]
) -> None:
    from pfd_iqa_hf.checkpoint import default_checkpoint
    from pfd_iqa_hf.hub.facts import FACTS_FILE, FactsError
    from pfd_iqa_hf.hub.repository_check import RepositoryError
    from pfd_iqa_hf.hub.repository_folder import LoadError, build_repository_folder

    try:
        build_repository_folder(
            model or default_checkpoint(), repo_id, folder, results=results, onnx=onnx
        )
    except FileExistsError as error:
        raise typer.BadParameter(str(error), param_hint="--output-dir") from error
    except (FactsError, LoadError, RepositoryError) as error:
        raise typer.BadParameter(f"cannot publish: {error}", param_hint="--model") from error
    except OSError as error:
        say(f"cannot write: {error}; make room there, or name another folder with --output-dir")
        raise typer.Exit(CANNOT_WRITE) from error
    if not (folder / FACTS_FILE).is_file():
        say(
            "note: the model has no training_facts.json, so its card names neither training data "
            "nor licence of the weights; docs/hub.md tells how to write one"
        )


def _list(folder: Path) -> None:
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            typer.echo(f"{file.stat().st_size:>12,}  {file.relative_to(folder).as_posix()}")


def _upload(
    folder: Path,
    repo_id: str,
    private: bool,
    revision: str | None,
    create_pr: bool,
    token: str | None,
) -> int:
    from huggingface_hub.utils import logging

    from pfd_iqa_hf.hub.push import PushError
    from pfd_iqa_hf.hub.push import push as upload

    logging.set_verbosity_error()  # retries are its affair; what fails in the end is told below
    try:
        published: Published = upload(folder, repo_id, private, revision, token, create_pr)
    except PushError as error:
        say(str(error))
        return _REFUSED if error.refused else _UNREACHABLE
    except KeyboardInterrupt as error:
        if error.args:
            say(str(error))
        raise
    if not published.changed:
        say(f"{repo_id} holds exactly this already; no commit was made")
    typer.echo(published.address)
    return 0
