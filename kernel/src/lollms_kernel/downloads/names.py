"""Names of repositories and files on a hub: checked before they become paths, and as people write them.

    owner/repo            the best-known quantization of a repository
    owner/repo:Q4_K_M     one quantization
    owner/repo/file.gguf  one file

What leads out of a folder is refused here, so that a name from a hub or a client is safe to join to a path.
"""

from __future__ import annotations

import re

import msgspec

from ..errors import InvalidRequest

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|]')
_HOSTS = ("https://huggingface.co/", "huggingface.co/", "https://hf.co/", "hf.co/", "hf://")
MAX_SEGMENT = 240
"""Bytes of one part of a path; file systems allow 255."""
MAX_DEPTH = 8


class Wanted(msgspec.Struct, frozen=True):
    """What somebody wants of a hub: a file, a quantization, or whatever suits."""

    repo: str
    file: str | None = None
    quantization: str | None = None

    def __str__(self) -> str:
        if self.file is not None:
            return f"{self.repo}/{self.file}"
        return self.repo if self.quantization is None else f"{self.repo}:{self.quantization}"


def check_repo(repo: str) -> str:
    """The id of a repository, `owner/repo`. Raises InvalidRequest for anything else."""
    parts = repo.split("/")
    if len(parts) != 2 or not all(_SEGMENT.fullmatch(part) and ".." not in part for part in parts):
        raise InvalidRequest(
            f"'{_shown(repo)}' is no repository.", hint="A repository is called OWNER/REPO, as on the hub."
        )
    return repo


def check_file(file: str) -> str:
    """A path inside a repository. Raises InvalidRequest if it could lead out of it."""
    parts = file.split("/")
    wrong = any(
        not part
        or part in (".", "..")
        or part.startswith(".")
        or part.endswith((" ", "."))
        or _FORBIDDEN.search(part)
        or not _encodable(part)
        or len(part.encode()) > MAX_SEGMENT
        for part in parts
    )
    if wrong or len(parts) > MAX_DEPTH:
        raise InvalidRequest(
            f"'{_shown(file)}' is no file name that can be stored here.",
            hint="Name a file as the repository lists it.",
        )
    return file


def parse_wanted(text: str) -> Wanted:
    """What `owner/repo[:quantization|/file]` means; the address of a file on the public hub is understood too.

    Raises InvalidRequest.
    """
    rest = text.strip()
    for host in _HOSTS:
        rest = rest.removeprefix(host)
    repo, colon, quantization = rest.partition(":")
    parts = repo.split("/")
    if len(parts) > 4 and parts[2] in ("resolve", "blob"):
        del parts[2:4]
    file = "/".join(parts[2:]) or None
    wanted = Wanted(check_repo("/".join(parts[:2])), file, quantization.upper() or None)
    if file is not None:
        check_file(file)
    if colon and (file is not None or not re.fullmatch(r"[A-Z0-9_]+", quantization.upper())):
        raise InvalidRequest(
            f"'{_shown(text)}' names no quantization.",
            hint="Write OWNER/REPO:Q4_K_M, or OWNER/REPO/FILE.gguf for one file.",
        )
    return wanted


def _shown(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:120])


def _encodable(part: str) -> bool:
    try:
        part.encode()
    except UnicodeEncodeError:
        return False
    return True
