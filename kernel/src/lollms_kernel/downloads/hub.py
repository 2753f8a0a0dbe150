"""What a hub says of its repositories: files, sizes and checksums. It speaks through `huggingface_hub`, for metadata
only, since that library neither resumes downloads nor verifies them.

`huggingface_hub` blocks, so every call runs in a thread; it is imported by the first call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ..errors import DownloadFailed, Forbidden, LollmsError, NotFound, RateLimited, Unauthorized, Unavailable
from ..upstream import Memory, on_this_machine, retry_after
from .in_thread import abandonable
from .names import check_repo

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")

TIMEOUT = 20.0
"""Seconds that an answer of metadata may take."""
FRESH = 300.0
"""Seconds that the files of a repository are not asked for again."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class HubFile(msgspec.Struct, frozen=True):
    """A file of a repository; size 0 and "" where the hub does not tell."""

    path: str
    size: int = 0
    sha256: str = ""
    git_sha1: str = ""


class HubModel(msgspec.Struct, frozen=True, kw_only=True):
    """A repository. Times are ISO texts as the hub writes them; `revision` is the commit, "" where it is not told."""

    id: str
    revision: str = ""
    files: tuple[HubFile, ...] = ()
    downloads: int = 0
    likes: int = 0
    created: str = ""
    updated: str = ""
    gated: bool = False

    def file(self, path: str) -> HubFile | None:
        """The file of this path, whatever the case of its letters."""
        folded = path.casefold()
        exact = (file for file in self.files if file.path == path)
        return next(exact, None) or next(
            (file for file in self.files if file.path.casefold() == folded), None
        )


class Hub:
    """The metadata of one hub."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._models: Memory[str, HubModel] = Memory(FRESH)
        self._api: HfApi | None = None

    async def model(self, repo: str) -> HubModel:
        """A repository with sizes and checksums of its files. Raises what `explain` makes of a refusal."""
        check_repo(repo)

        async def ask() -> HubModel:
            return await self._ask(
                lambda api: _model(api.model_info(repo, files_metadata=True, timeout=TIMEOUT)), repo
            )

        return await self._models.recall(repo.casefold(), ask)

    async def models(self, limit: int) -> list[HubModel]:
        """The GGUF text models that changed last, without sizes and checksums."""

        def ask(api: HfApi) -> list[HubModel]:
            found = api.list_models(
                filter="gguf", pipeline_tag="text-generation", sort="last_modified", full=True, limit=limit
            )
            return list(_readable(islice(found, limit)))

        return await self._ask(ask, None)

    def forget(self, repo: str) -> None:
        """Ask anew for a repository, because what was known is no longer true."""
        self._models.forget(repo.casefold())

    async def _ask(self, ask: Callable[[HfApi], T], repo: str | None) -> T:
        def work() -> T:
            try:
                return ask(self._connected())
            except LollmsError:
                raise
            except Exception as error:  # the library raises its own errors and those of two HTTP libraries
                raise explain(error, self.url, repo) from error

        return await abandonable(work)

    def _connected(self) -> HfApi:
        if self._api is None:
            import huggingface_hub

            huggingface_hub.set_client_factory(lambda: _client(self.url))
            self._api = huggingface_hub.HfApi(
                endpoint=self.url, token=self._token or False, library_name="lollms"
            )
        return self._api


def _client(url: str) -> Any:
    """As huggingface_hub makes it, but it does not wait for ever, and no proxy leads to this machine."""
    import httpx2
    from huggingface_hub.utils import _http

    return httpx2.Client(
        event_hooks={"request": [_http.hf_request_event_hook]},
        follow_redirects=True,
        timeout=TIMEOUT,
        trust_env=not on_this_machine(url),
    )


def _readable(found: Iterable[Any]) -> Iterable[HubModel]:
    """The entries of a listing that can be understood; one odd entry shall not hide the others."""
    for entry in found:
        try:
            yield _model(entry)
        except (AttributeError, TypeError, ValueError):
            continue


def _model(info: Any) -> HubModel:
    files = [_file(sibling) for sibling in info.siblings or ()]
    revision = info.sha if isinstance(info.sha, str) and _COMMIT.fullmatch(info.sha) else ""
    return HubModel(
        id=str(info.id),
        revision=revision,
        files=tuple(files),
        downloads=_count(info.downloads),
        likes=_count(info.likes),
        created=_iso(info.created_at),
        updated=_iso(info.last_modified),
        gated=bool(info.gated),
    )


def _file(sibling: Any) -> HubFile:
    lfs = sibling.lfs
    sha256 = str(lfs.sha256).lower() if lfs is not None else ""
    blob = str(sibling.blob_id or "").lower()
    return HubFile(
        path=str(sibling.rfilename),
        size=_count(lfs.size if lfs is not None else sibling.size),
        sha256=sha256 if _SHA256.fullmatch(sha256) else "",
        git_sha1=blob if lfs is None and _COMMIT.fullmatch(blob) else "",
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _iso(moment: Any) -> str:
    if moment is None:
        return ""
    text: str = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return text


def explain(error: Exception, url: str, repo: str | None) -> LollmsError:
    """The error for what `huggingface_hub` raises."""
    names = {kind.__name__ for kind in type(error).__mro__}
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    what = f"the repository '{repo}'" if repo else "the listing"
    if "GatedRepoError" in names:
        return refusal(403, {}, what, gated=True)
    if "RepositoryNotFoundError" in names:
        return refusal(404, {}, what)
    if status is not None:
        headers = {name.lower(): value for name, value in response.headers.items()}  # type: ignore[union-attr]  # it has a status
        return refusal(status, headers, what)
    if "OfflineModeIsEnabled" in names:
        return Unavailable(
            "HF_HUB_OFFLINE is set, so the hub is not asked.", hint="Unset it to download models."
        )
    if names & {"HTTPError", "TransportError", "RequestError", "ConnectionError", "TimeoutError", "OSError"}:
        return unreachable(url)
    return DownloadFailed(
        f"The hub's answer for {what} cannot be read.", hint=f"Is {_host(url)} a model hub?"
    )


def refusal(status: int, headers: dict[str, str], what: str, *, gated: bool = False) -> LollmsError:
    """The error for an HTTP status other than success; `what` is what was asked for."""
    code = headers.get("x-error-code", "")
    if gated or code == "GatedRepo":
        return Forbidden(
            f"The hub does not give {what}: its owner wants to be asked first.",
            hint="Ask for access on its page, then set downloads.hub_token (or HF_TOKEN) to your token.",
        )
    if status == 401:
        return Unauthorized(
            f"The hub wants a valid token for {what} (HTTP 401).",
            hint="Set downloads.hub_token (or HF_TOKEN) to a token of the hub; or is the name misspelt?",
        )
    if status == 403:
        return Forbidden(
            f"The hub refuses {what} (HTTP 403).", hint="Does the token in downloads.hub_token have access?"
        )
    if status in (404, 410):
        return NotFound(
            f"The hub does not have {what} (HTTP {status}).", hint="Compare the name with the hub's page."
        )
    if status == 429:
        return RateLimited(
            f"The hub gets too many requests (HTTP 429) and did not give {what}.",
            hint="Wait, or set downloads.hub_token: known users may ask more often.",
            retry_after=retry_after(headers),
        )
    if status in (408, 425) or status >= 500:
        return Unavailable(
            f"The hub failed (HTTP {status}) and did not give {what}.",
            hint="The fault is on its side; try again later.",
            retry_after=retry_after(headers),
        )
    return DownloadFailed(
        f"The hub answered HTTP {status} for {what}.", hint="Does downloads.hub_url lead to a model hub?"
    )


def unreachable(url: str) -> LollmsError:
    """The error where nothing answers."""
    return Unavailable(
        f"The hub at {_host(url)} cannot be reached.",
        hint="Is this machine connected? downloads.hub_url says where models come from.",
    )


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2]
