"""Words of libraries as clients may read them: without the places on this machine where files lie."""

from __future__ import annotations

from pathlib import Path


def reason(error: Exception, *folders: Path) -> str:
    """The first line of an error; paths in it begin below the `folders`."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    known = {str(form) for folder in folders for form in (folder, folder.absolute(), folder.resolve())}
    for place in sorted(known - {"/", "."}, key=len, reverse=True):
        text = text.replace(f"{place}/", "").replace(f"{place}\\", "")
    return text[:300]
