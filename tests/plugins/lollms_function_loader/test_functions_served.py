"""Functions of a folder in a running server."""

from __future__ import annotations

from pathlib import Path

import httpx

from lollms_kernel.testing import ServerProcess

OWN = ("calculator.evaluate", "clock.days_between", "clock.now")


def test_given_a_folder_of_functions_when_listed_then_all_but_the_broken_ones_are_there(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "personal/functions"
    folder.mkdir(parents=True)
    (folder / "dice.py").write_text("async def roll(sides: int = 6): ...\n\n\nasync def flip(): ...\n")
    (folder / "broken.py").write_text("async def roll(:\n")

    with ServerProcess(root=tmp_path) as server:
        listed = httpx.get(f"{server.url}/api/v1/list_functions").json()
        log = server.log()

    assert listed == {"functions": [*OWN, "dice.flip", "dice.roll"]}
    assert "broken.py, line 1, are left out: SyntaxError" in log
