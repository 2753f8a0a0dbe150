"""A model hub: the part of Hugging Face's HTTP protocol that listings and downloads need, with a storage of its own.

As on the real one, large files are in a storage on another host and port, where `resolve` redirects to; small ones
come from the hub itself. What the storage can do wrong beside `faults` are fields of `FakeStorage`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, unquote

import msgspec

from .server import FakeServer, Received, Reply

FRAME = 1 << 16
"""Bytes of a body that go out in one write."""
POINTER = 130
"""Bytes of the pointer that git has instead of a large file."""
NO_BODY = {"content-length": "0"}


class FakeRepo(msgspec.Struct, kw_only=True):
    """A repository and what it held at each commit; `files` may be exchanged at any time."""

    id: str
    files: dict[str, bytes]
    small: frozenset[str] = frozenset()
    """Files that are not in the storage, but in git itself."""
    sizes: dict[str, int] = {}
    """Sizes that the metadata tell wrongly."""
    gated: bool = False
    downloads: int = 12
    likes: int = 3
    created: str = "2024-05-01T10:00:00.000Z"
    modified: str = "2024-05-02T10:00:00.000Z"
    tags: tuple[str, ...] = ("gguf",)
    pipeline_tag: str = "text-generation"
    commits: dict[str, dict[str, bytes]] = {}

    @property
    def head(self) -> str:
        """The commit of the present files."""
        digest = hashlib.sha1(self.id.encode(), usedforsecurity=False)
        for name, content in sorted(self.files.items()):
            digest.update(name.encode() + hashlib.sha256(content).digest())
        self.commits.setdefault(digest.hexdigest(), dict(self.files))
        return digest.hexdigest()

    def at(self, revision: str) -> Mapping[str, bytes] | None:
        """The files of a revision, None if there is no such."""
        head = self.head
        return self.files if revision in ("main", head) else self.commits.get(revision)

    def entry(self, *, blobs: bool) -> dict[str, Any]:
        """What `/api/models` says of it."""
        return {
            "_id": self.id,
            "id": self.id,
            "modelId": self.id,
            "sha": self.head,
            "private": False,
            "gated": "manual" if self.gated else False,
            "downloads": self.downloads,
            "likes": self.likes,
            "createdAt": self.created,
            "lastModified": self.modified,
            "tags": list(self.tags),
            "pipeline_tag": self.pipeline_tag,
            "siblings": [self._sibling(name, blobs) for name in self.files],
        }

    def tree(self) -> list[dict[str, Any]]:
        """What `/api/models/…/tree/…` says of its files."""
        found = []
        for name in self.files:
            told = self._sibling(name, blobs=True)
            entry = {"type": "file", "path": name, "size": told["size"], "oid": told["blobId"]}
            if "lfs" in told:
                entry["lfs"] = {"oid": told["lfs"]["sha256"], "size": told["size"], "pointerSize": POINTER}
            found.append(entry)
        return found

    def _sibling(self, name: str, blobs: bool) -> dict[str, Any]:
        if not blobs:
            return {"rfilename": name}
        content = self.files[name]
        size = self.sizes.get(name, len(content))
        entry = {"rfilename": name, "size": size, "blobId": git_sha1(content)}
        if name not in self.small:
            entry["lfs"] = {"sha256": sha256(content), "size": size, "pointerSize": POINTER}
        return entry


class FakeStorage(FakeServer):
    """Serves files by their checksum, whole or in ranges, to whoever has the address."""

    def __init__(self) -> None:
        super().__init__()
        self.blobs: dict[str, bytes] = {}
        self.ignores_range = False
        self.tells_length = True
        self.etag: Callable[[str], str] = lambda checksum: f'"{checksum[:32]}"'
        """The ETag of a file, which is not its checksum, as the real storage has it."""
        self.mangle: Callable[[bytes], bytes] = lambda content: content
        """What becomes of a file before it is sent."""

    def reply(self, request: Received) -> Reply:
        """See `FakeServer.reply`."""
        checksum = request.path.rpartition("/")[2]
        if checksum not in self.blobs:
            return Reply(status=404, headers=NO_BODY)
        content = self.mangle(self.blobs[checksum])
        return _ranged(
            request,
            content,
            self.etag(checksum),
            ignores_range=self.ignores_range,
            tells_length=self.tells_length,
        )


class FakeHub(FakeServer):
    """The hub. `add` puts repositories into it; `storage` is where large files come from."""

    def __init__(self, *, token: str | None = None, page_size: int = 1000) -> None:
        super().__init__()
        self.token = token
        self.page_size = page_size
        self.storage = FakeStorage()
        self.repos: dict[str, FakeRepo] = {}
        self.location: Callable[[str], str] = lambda checksum: f"{self.storage.url}/blobs/{checksum}?sig=s"
        """Where `resolve` redirects to for a large file."""

    def add(self, repo: str, files: Mapping[str, bytes], **fields: Any) -> FakeRepo:
        """Put a repository into it."""
        self.repos[repo] = made = FakeRepo(id=repo, files=dict(files), commits={}, **fields)
        return made

    def __enter__(self) -> Self:
        self.storage.__enter__()
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, error, trace)
        finally:
            self.storage.__exit__(kind, error, trace)

    def reply(self, request: Received) -> Reply:
        """See `FakeServer.reply`."""
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        if key and key != self.token:
            return _refused(401, "", "Invalid credentials in Authorization header")
        path = unquote(request.path).strip("/")
        if path == "api/models":
            return self._listing(request)
        if path.startswith("api/models/"):
            return self._metadata(request, path.removeprefix("api/models/"))
        owner, _, rest = path.partition("/")
        name, _, rest = rest.partition("/")
        kind, _, rest = rest.partition("/")
        revision, _, file = rest.partition("/")
        if kind != "resolve" or not file:
            return _refused(404, "", "Not found")
        return self._resolved(request, f"{owner}/{name}", revision, file)

    def _allowed(self, request: Received, repo: FakeRepo) -> bool:
        return not repo.gated or (
            self.token is not None and f"Bearer {self.token}" == request.headers.get("authorization")
        )

    def _listing(self, request: Received) -> Reply:
        query = {name: values[-1] for name, values in request.query.items()}
        wanted = query.get("search", "").casefold()
        kinds = request.query.get("filter", [])
        found = [
            repo
            for repo in self.repos.values()
            if wanted in repo.id.casefold()
            and all(kind in repo.tags for kind in kinds)
            and query.get("pipeline_tag", repo.pipeline_tag) == repo.pipeline_tag
        ]
        if query.get("sort") == "lastModified":
            found.sort(key=lambda repo: repo.modified, reverse=True)
        limit = min(int(query.get("limit", self.page_size)), self.page_size)
        start = int(query.get("cursor", 0))
        shown = found[start : start + limit]
        headers = {"content-type": "application/json"}
        if start + limit < len(found):
            others = "&".join(f"{name}={quote(value)}" for name, value in query.items() if name != "cursor")
            headers["link"] = f'<{self.url}/api/models?{others}&cursor={start + limit}>; rel="next"'
        entries = [repo.entry(blobs=False) for repo in shown]
        if "full" not in query:
            for entry in entries:
                del entry["siblings"]
        return Reply(headers=headers, frames=(msgspec.json.encode(entries),))

    def _metadata(self, request: Received, path: str) -> Reply:
        owner, name, *rest = path.split("/")
        repo = self._named(f"{owner}/{name}")
        if repo is None:
            return _refused(401 if not self.token else 404, "RepoNotFound", "Repository not found")
        if rest[:1] == ["tree"]:
            return (
                Reply.of(repo.tree())
                if rest[1:] in (["main"], [repo.head])
                else _refused(404, "RevisionNotFound", "")
            )
        return Reply.of(repo.entry(blobs="blobs" in request.query))

    def _named(self, name: str) -> FakeRepo | None:
        folded = name.casefold()
        return next((repo for repo in self.repos.values() if repo.id.casefold() == folded), None)

    def _resolved(self, request: Received, name: str, revision: str, file: str) -> Reply:
        repo = self._named(name)
        if repo is None:
            return _refused(404, "RepoNotFound", "Repository not found")
        if not self._allowed(request, repo):
            return _refused(
                403 if self.token and "authorization" in request.headers else 401,
                "GatedRepo",
                "Access is restricted",
            )
        files = repo.at(revision)
        if files is None:
            return _refused(404, "RevisionNotFound", "Invalid rev id")
        if file not in files:
            return _refused(404, "EntryNotFound", "Entry not found")
        content = files[file]
        commit = {"x-repo-commit": repo.head if revision == "main" else revision}
        if file in repo.small:
            return _ranged(request, content, f'"{git_sha1(content)}"', more=commit)
        checksum = sha256(content)
        self.storage.blobs[checksum] = content
        return Reply(
            status=302,
            headers={
                **commit,
                **NO_BODY,
                "location": self.location(checksum),
                "x-linked-etag": f'"{checksum}"',
                "x-linked-size": str(len(content)),
                "accept-ranges": "bytes",
            },
        )


def sha256(content: bytes) -> str:
    """The checksum of a large file."""
    return hashlib.sha256(content).hexdigest()


def git_sha1(content: bytes) -> str:
    """The checksum that git has of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _ranged(
    request: Received,
    content: bytes,
    etag: str,
    *,
    more: Mapping[str, str] | None = None,
    ignores_range: bool = False,
    tells_length: bool = True,
) -> Reply:
    start, status = 0, 200
    wanted = request.headers.get("range", "")
    if wanted.startswith("bytes=") and not ignores_range and request.headers.get("if-range", etag) == etag:
        start, status = int(wanted.removeprefix("bytes=").partition("-")[0]), 206
    headers = {
        "etag": etag,
        "accept-ranges": "bytes",
        "content-type": "application/octet-stream",
        **(more or {}),
    }
    if start >= len(content) and status == 206:
        return Reply(status=416, headers={**headers, **NO_BODY, "content-range": f"bytes */{len(content)}"})
    if status == 206:
        headers["content-range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
    if tells_length:
        headers["content-length"] = str(len(content) - start)
    frames = () if request.method == "HEAD" else _frames(content, start)
    return Reply(status=status, headers=headers, frames=frames)


def _frames(content: bytes, start: int) -> Iterator[bytes]:
    view = memoryview(content)
    for at in range(start, len(content), FRAME):
        yield bytes(view[at : at + FRAME])


def _refused(status: int, code: str, message: str) -> Reply:
    headers = {
        "content-type": "application/json",
        **({"x-error-code": code, "x-error-message": message} if code else {}),
    }
    return Reply(status=status, headers=headers, frames=(msgspec.json.encode({"error": message}),))
