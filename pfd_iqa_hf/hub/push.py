"""Publish a checkpoint, with its code, on the Hub.

    python push_to_hub.py --model runs/mine --repo-id ORG/NAME --output-dir published --dry-run

builds the repository in a folder and uploads nothing; without `--dry-run` it is uploaded.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.utils import HFValidationError, validate_repo_id

from pfd_iqa_hf.checkpoint import default_checkpoint
from pfd_iqa_hf.hub.repository_folder import build_repository_folder

__all__ = ["main", "push"]


def push(
    folder: Path,
    repo_id: str,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
) -> str:
    """Create the repository where there is none and upload `folder` as one commit.

    Args:
        folder: What `build_repository_folder` wrote.
        repo_id: `ORG/NAME`.
        private: Whether a repository that is created is private.
        revision: Branch to commit to, created where there is none; default: the main branch.
        token: Access token; default: the one of `hf auth login`.

    Returns:
        The address of the commit.

    Raises:
        huggingface_hub.errors.HfHubHTTPError: the Hub refused.
    """
    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    if revision is not None:
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    commit = api.upload_folder(
        repo_id=repo_id,
        folder_path=folder,
        revision=revision,
        commit_message="Upload PFD-IQA checkpoint",
    )
    return commit.commit_url


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="push_to_hub.py", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("--model", help="folder or Hub id; default: the bundled checkpoint")
    parser.add_argument("--repo-id", required=True, metavar="ORG/NAME")
    parser.add_argument(
        "--output-dir", type=Path, help="keep the repository's files in this new folder"
    )
    parser.add_argument("--dry-run", action="store_true", help="upload nothing")
    parser.add_argument("--private", action="store_true", help="create a private repository")
    parser.add_argument("--revision", help="branch to commit to")
    parser.add_argument("--token", help="access token; default: the one of `hf auth login`")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; `arguments` are the process's own if None."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.dry_run and options.output_dir is None:
        parser.error("--dry-run needs --output-dir, or nothing would be left to look at")
    try:
        validate_repo_id(options.repo_id)
    except HFValidationError as error:
        parser.error(f"--repo-id: {error}")
    model = options.model or default_checkpoint()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.output_dir or Path(temporary) / "repository"
        try:
            build_repository_folder(model, options.repo_id, folder)
        except FileExistsError as error:
            parser.error(f"--output-dir: {error}")
        except (OSError, RuntimeError, ValueError) as error:
            parser.error(f"--model: cannot publish {model}: {' '.join(str(error).split())}")
        if options.dry_run:
            print(f"{options.repo_id} as it would be uploaded: {folder}")
            return
        address = push(folder, options.repo_id, options.private, options.revision, options.token)
        print(address)


if __name__ == "__main__":
    main()
