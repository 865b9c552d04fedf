"""Upload a repository folder to the Hub in one commit."""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_token,
)
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from pfd_iqa_hf.hub.push_error import PushError, explained

__all__ = ["Published", "PushError", "push"]

_MESSAGE = "Upload PFD-IQA model"
_NOTHING_LEFT = "nothing was changed on the Hub"
# What an earlier upload may have left and this one does not have: weights in other shards, code
# that was renamed, predictions of other weights. Whatever else lies in the repository stays.
_OURS = ("*.py", "*.safetensors", "*.safetensors.index.json", "onnx/*", "results/*", "samples/*")


@dataclass(frozen=True)
class Published:
    """What an upload came to.

    Attributes:
        address: Of the pull request, the commit, or the commit that was there already.
        changed: False where the repository held the same content, so that no commit was made.
        created: Whether the repository was created.
    """

    address: str
    changed: bool
    created: bool


class _Attempt:
    """An upload under way: what it has made on the Hub, in case it breaks."""

    def __init__(self, api: HfApi, repo_id: str, revision: str | None) -> None:
        self.api = api
        self.repo_id = repo_id
        self.revision = revision
        self.created = False
        self.new_branch = ""
        self.before: str | None = None

    def head(self) -> Any:
        """The newest commit and its files."""
        return self.api.model_info(self.repo_id, revision=self.revision)

    def clean_up(self) -> str:
        """Take back a branch without a commit of its own; say what is left."""
        if self.before is not None and self._newest() != self.before:
            # The answer to the commit was lost, so nobody here knows whether it was made.
            return f"{self.repo_id} holds either all of it or nothing of it"
        if self.created:
            return f"the new repository {self.repo_id} is left empty"
        if self.new_branch and not self._branch_taken_back():
            return f"the new branch {self.new_branch} is left, without a commit of its own"
        return _NOTHING_LEFT

    def _newest(self) -> str | None:
        try:
            return str(self.head().sha)
        except Exception as error:
            if explained(error, self.repo_id, self.api.endpoint) is None:
                raise
            return None

    def _branch_taken_back(self) -> bool:
        try:
            self.api.delete_branch(self.repo_id, branch=self.new_branch)
        except Exception as error:
            if explained(error, self.repo_id, self.api.endpoint) is None:
                raise
            return False
        return True


def push(
    folder: Path,
    repo_id: str,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
    create_pr: bool = False,
) -> Published:
    """Create the repository where there is none, and make it hold what `folder` holds.

    All files go up in one commit, so that the repository is never half published. Files of an
    earlier upload that the folder has no more are deleted by the same commit. Where nothing differs
    no commit is made.

    Args:
        folder: What `build_repository_folder` wrote.
        repo_id: `ORG/NAME`.
        private: Create it as a private repository.
        revision: Branch to commit to, created where there is none; default: the main branch.
        token: Access token; default: the environment's, or the one of `hf auth login`.
        create_pr: Open a pull request instead of committing; needs no right to write.

    Returns:
        Where it was published.

    Raises:
        ValueError: a pull request to another branch than main was asked for.
        PushError: the Hub refused or could not be reached; the message says why, what is left on
            the Hub and what to do.
    """
    if create_pr and revision not in (None, constants.DEFAULT_REVISION):
        raise ValueError("a pull request goes to the main branch: leave the revision out")
    if token is None and get_token() is None:
        raise PushError(
            "there is no access token",
            _NOTHING_LEFT,
            "run `hf auth login`, set HF_TOKEN, or give a token",
        )
    attempt = _Attempt(HfApi(token=token), repo_id, revision)
    with _told(attempt):
        _prepare(attempt, private)
        commit = _commit(attempt, folder, create_pr)
    changed = commit.oid != attempt.before
    return Published(commit.pr_url or commit.commit_url, changed, attempt.created)


def _prepare(attempt: _Attempt, private: bool) -> None:
    """Make repository and branch where there are none."""
    api, repo_id, revision = attempt.api, attempt.repo_id, attempt.revision
    try:
        found = api.model_info(repo_id)
    except RepositoryNotFoundError:
        api.create_repo(repo_id, private=private or None)
        attempt.created = True
    else:
        if private and not found.private:
            raise PushError(
                f"{repo_id} exists and is public",
                _NOTHING_LEFT,
                "make it private in its settings, name another one, or leave --private out",
            )
    if revision is None:
        return
    try:
        attempt.head()
    except RevisionNotFoundError:
        api.create_branch(repo_id, branch=revision, exist_ok=True)
        attempt.new_branch = revision


def _commit(attempt: _Attempt, folder: Path, create_pr: bool) -> CommitInfo:
    """Commit; where the connection breaks look again, once.

    If only the answer was lost, nothing differs any more and the client makes no second commit. A
    pull request would be opened twice, so it is not tried again.
    """
    for last in (create_pr, True):
        remote = attempt.head()
        attempt.before = attempt.before or remote.sha
        try:
            return attempt.api.create_commit(
                attempt.repo_id,
                [*_deletions(folder, remote), *_additions(folder)],
                commit_message=_MESSAGE,
                revision=attempt.revision,
                create_pr=create_pr,
            )
        except Exception as error:
            problem = explained(error, attempt.repo_id, attempt.api.endpoint)
            if last or problem is None or problem.refused:
                raise
    raise AssertionError("the last attempt returns or raises")


def _additions(folder: Path) -> list[CommitOperationAdd]:
    return [
        CommitOperationAdd(file.relative_to(folder).as_posix(), file)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    ]


def _deletions(folder: Path, remote: Any) -> list[CommitOperationDelete]:
    return [
        CommitOperationDelete(name, is_folder=False)
        for name in sorted(sibling.rfilename for sibling in remote.siblings or ())
        if not (folder / name).exists() and _is_ours(name)
    ]


def _is_ours(name: str) -> bool:
    # Patterns without a folder are about the top level only.
    return any(
        fnmatch.fnmatchcase(name, pattern) and ("/" in pattern or "/" not in name)
        for pattern in _OURS
    )


@contextmanager
def _told(attempt: _Attempt) -> Iterator[None]:
    """Turn whatever the client raises into one message, after taking back an empty branch."""
    try:
        with warnings.catch_warnings():
            # It wonders about tables in a model's repository; they are its predictions.
            warnings.filterwarnings("ignore", message="It seems that you are about to commit")
            yield
    except PushError:
        raise
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(attempt.clean_up()) from error
    except Exception as error:  # the client wraps failures of uploads in plain RuntimeError
        problem = explained(error, attempt.repo_id, attempt.api.endpoint)
        if problem is None:
            raise
        left = attempt.clean_up()
        raise PushError(problem.reason, left, problem.remedy, refused=problem.refused) from error
