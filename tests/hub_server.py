"""The smallest server that speaks the Hub's routes which the genuine client uses; for tests only.

What is kept: repositories with branches, commits and large files; those of datasets and Spaces are
called `datasets/ORG/NAME` and `spaces/ORG/NAME`. What is not: users, organisations, running Spaces,
Xet storage (it is never offered, so clients fall back to LFS).
"""

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["Fault", "HubServer", "Repository", "hub_server"]

_LARGE = (".safetensors", ".onnx", ".parquet")
_NAME = r"[\w.-]+/[\w.-]+"
_API = rf"/api/(?P<kind>models|datasets|spaces)/(?P<repo>{_NAME})"
_FILES = rf"/(?:(?P<kind>datasets|spaces)/)?(?P<repo>{_NAME})"


def blob_id(content: bytes) -> str:
    """Git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repository:
    """Commits are dictionaries from path to content; branches name commits."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    titles: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], title: str) -> str:
        """Store a tree as the newest commit of a branch."""
        self.titles.append(title)
        listing = json.dumps([title, len(self.titles), *sorted(files)]).encode()
        oid = hashlib.sha1(listing).hexdigest()
        self.commits[oid] = files
        self.branches[branch] = oid
        return oid

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """The tree of a branch or commit."""
        return self.commits[self.branches.get(revision, revision)]


@dataclass
class Fault:
    """What goes wrong with the next matching requests.

    Attributes:
        method: Of the request.
        path: Found anywhere in its address.
        status: Answer with this status and a page that is no JSON; None cuts the connection.
        after: Bytes of the body that are read before the cut.
        times: How many requests it strikes.
        skip: How many matching requests pass before.
        late: Cut only after the request was carried out: its answer is lost.
    """

    method: str
    path: str
    status: int | None = None
    after: int = 0
    times: int = 1
    skip: int = 0
    late: bool = False


class Refused(Exception):
    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class HubServer(ThreadingHTTPServer):
    """Tokens map to the namespaces that they may write to; `faults` strike requests."""

    daemon_threads = True

    def __init__(self, tokens: dict[str, set[str]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.tokens = tokens
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.log: list[str] = []
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        """For HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was cut on purpose is no news."""


@contextmanager
def hub_server(tokens: dict[str, set[str]]) -> Iterator[HubServer]:
    """A running server."""
    server = HubServer(tokens)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer
    late = False

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing on standard error."""

    def _handle(self) -> None:
        self.server.log.append(f"{self.command} {self.path}")
        length = int(self.headers.get("Content-Length") or 0)
        fault = self._fault()
        self.late = fault is not None and fault.late
        if fault is not None and fault.status is None and not fault.late:
            self.rfile.read(min(fault.after, length))
            self._cut()
            return
        body = self.rfile.read(length)
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        if fault is not None and fault.status is not None:
            self._send(fault.status, b"<html>not now</html>", {"Content-Type": "text/html"})
            return
        parts = urlsplit(self.path)
        # The client quotes slashes in branch names once; patterns see the rest unquoted.
        for method, pattern, route in _ROUTES:
            match = re.fullmatch(pattern, parts.path)
            if match and self.command in method.split():
                values = {key: unquote(value or "") for key, value in match.groupdict().items()}
                kind = values.pop("kind", "models") or "models"
                if "repo" in values and kind != "models":
                    values["repo"] = f"{kind}/{values['repo']}"
                try:
                    with self.server.lock:
                        route(self, body, parse_qs(parts.query), **values)
                except Refused as error:
                    self._send_json(error.status, {"error": str(error)}, error)
                return
        self._send_json(404, {"error": f"no such route: {self.command} {parts.path}"})

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle

    def _fault(self) -> Fault | None:
        for fault in self.server.faults:
            if fault.times and fault.method == self.command and fault.path in self.path:
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        if self.late:
            self._cut()
            return
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send_json(self, status: int, content: Any, error: Refused | None = None) -> None:
        headers = {"Content-Type": "application/json"}
        if error is not None:
            headers["X-Error-Message"] = str(error)
            if error.code:
                headers["X-Error-Code"] = error.code
        self._send(status, json.dumps(content).encode(), headers)

    # Who asks, and for what

    def _token(self) -> str | None:
        words = self.headers.get("Authorization", "").split()
        if not words:
            return None
        if words[-1] not in self.server.tokens:
            raise Refused(401, "Invalid credentials in Authorization header")
        return words[-1]

    def _may_write(self, repo: str, create_pr: bool = False) -> None:
        token = self._token()
        if token is None:
            raise Refused(401, "Invalid username or password.")
        if not create_pr and repo.split("/")[-2] not in self.server.tokens[token]:
            raise Refused(403, "Forbidden: you do not have write access to this repository.")

    def _repository(self, repo: str) -> Repository:
        token = self._token()
        found = self.server.repositories.get(repo)
        mine = token is not None and repo.split("/")[-2] in self.server.tokens[token]
        if found is None or (found.private and not mine):
            status = 404 if token else 401
            raise Refused(status, "Repository not found", "RepoNotFound")
        return found

    def _tree(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]]:
        found = self._repository(repo)
        oid = found.branches.get(revision, revision)
        if oid not in found.commits:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid, found.commits[oid]

    # Routes

    def _create(self, body: bytes, query: dict[str, list[str]]) -> None:
        asked = json.loads(body)
        kind = asked.get("type", "model")
        repo = f"{asked['organization']}/{asked['name']}"
        if kind != "model":
            repo = f"{kind}s/{repo}"
        self._may_write(repo)
        if repo in self.server.repositories:
            raise Refused(409, "You already created this repo")
        new = Repository(private=asked.get("visibility") == "private")
        new.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        self.server.repositories[repo] = new
        self._send_json(200, {"url": f"{self.server.address}/{repo}"})

    def _validate(self, body: bytes, query: dict[str, list[str]]) -> None:
        content = json.loads(body)["content"]
        if not content.startswith("---\n"):
            self._send_json(400, {"errors": [{"message": "no metadata"}], "warnings": []})
            return
        self._send_json(200, {"errors": [], "warnings": []})

    def _preupload(
        self, body: bytes, query: dict[str, list[str]], repo: str, revision: str
    ) -> None:
        self._may_write(repo, "create_pr" in query)
        _, tree = self._tree(repo, revision)
        files = []
        for item in json.loads(body)["files"]:
            content = tree.get(item["path"])
            large = item["path"].endswith(_LARGE) or b"\0" in base64.b64decode(item["sample"])
            oid = None
            if content is not None:
                oid = hashlib.sha256(content).hexdigest() if large else blob_id(content)
            mode = "lfs" if large else "regular"
            files.append(
                {"path": item["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}
            )
        self._send_json(200, {"files": files})

    def _batch(self, body: bytes, query: dict[str, list[str]], repo: str) -> None:
        self._repository(repo)
        objects = []
        for item in json.loads(body)["objects"]:
            entry = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.server.large:
                place = f"{self.server.address}/large/{item['oid']}"
                entry["actions"] = {"upload": {"href": place}}
            objects.append(entry)
        self._send_json(200, {"transfer": "basic", "objects": objects})

    def _store(self, body: bytes, query: dict[str, list[str]], oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refused(400, "the content has another SHA-256")
        self.server.large[oid] = body
        self._send_json(200, {})

    def _commit(self, body: bytes, query: dict[str, list[str]], repo: str, revision: str) -> None:
        create_pr = "create_pr" in query
        self._may_write(repo, create_pr)
        _, tree = self._tree(repo, revision)
        files, title = dict(tree), ""
        for line in body.splitlines():
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "header":
                title = value["summary"]
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.server.large:
                    raise Refused(400, f"{value['path']} was not uploaded")
                files[value["path"]] = self.server.large[value["oid"]]
            elif key == "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
            else:
                raise Refused(400, f"unknown operation {key}")
        found = self.server.repositories[repo]
        requests = sum(name.startswith("refs/pr/") for name in found.branches)
        branch = f"refs/pr/{requests + 1}" if create_pr else revision
        oid = found.commit(branch, files, title)
        address = f"{self.server.address}/{repo}"
        answer = {"commitUrl": f"{address}/commit/{oid}", "commitOid": oid, "success": True}
        if create_pr:
            answer["pullRequestUrl"] = f"{address}/discussions/{requests + 1}"
        self._send_json(200, answer)

    def _info(
        self, body: bytes, query: dict[str, list[str]], repo: str, revision: str = "main"
    ) -> None:
        oid, tree = self._tree(repo, revision)
        answer = {
            "id": repo,
            "modelId": repo,
            "sha": oid,
            "private": self.server.repositories[repo].private,
            "siblings": [{"rfilename": name} for name in sorted(tree)],
            "tags": [],
            "downloads": 0,
            "likes": 0,
        }
        self._send_json(200, answer)

    def _list(self, body: bytes, query: dict[str, list[str]], repo: str, revision: str) -> None:
        _, tree = self._tree(repo, revision)
        entries = []
        for name, content in sorted(tree.items()):
            entry: dict[str, Any] = {
                "type": "file",
                "path": name,
                "size": len(content),
                "oid": blob_id(content),
            }
            if name.endswith(_LARGE):
                sha = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": sha, "size": len(content), "pointerSize": 130}
            entries.append(entry)
        self._send_json(200, entries)

    def _branch(self, body: bytes, query: dict[str, list[str]], repo: str, branch: str) -> None:
        self._may_write(repo)
        found = self._repository(repo)
        if self.command == "DELETE":
            del found.branches[branch]
        elif branch in found.branches:
            raise Refused(409, "Reference already exists")
        else:
            found.branches[branch] = found.branches["main"]
        self._send_json(200, {})

    def _resolve(
        self, body: bytes, query: dict[str, list[str]], repo: str, revision: str, file: str
    ) -> None:
        oid, tree = self._tree(repo, revision)
        if file not in tree:
            raise Refused(404, "Entry not found", "EntryNotFound")
        content = tree[file]
        large = file.endswith(_LARGE)
        etag = hashlib.sha256(content).hexdigest() if large else blob_id(content)
        self._send(200, content, {"X-Repo-Commit": oid, "ETag": f'"{etag}"'})


_Route = Callable[..., None]
_ROUTES: list[tuple[str, str, _Route]] = [
    ("POST", r"/api/repos/create", _Handler._create),
    ("POST", r"/api/validate-yaml", _Handler._validate),
    ("POST", rf"{_API}/preupload/(?P<revision>[^/]+)", _Handler._preupload),
    ("POST", rf"{_FILES}\.git/info/lfs/objects/batch", _Handler._batch),
    ("PUT", r"/large/(?P<oid>[0-9a-f]{64})", _Handler._store),
    ("POST", rf"{_API}/commit/(?P<revision>[^/]+)", _Handler._commit),
    ("POST DELETE", rf"{_API}/branch/(?P<branch>[^/]+)", _Handler._branch),
    ("GET", rf"{_API}", _Handler._info),
    ("GET", rf"{_API}/revision/(?P<revision>[^/]+)", _Handler._info),
    ("GET", rf"{_API}/tree/(?P<revision>[^/]+)", _Handler._list),
    (
        "GET HEAD",
        rf"{_FILES}/resolve/(?P<revision>[^/]+)/(?P<file>.+)",
        _Handler._resolve,
    ),
]
