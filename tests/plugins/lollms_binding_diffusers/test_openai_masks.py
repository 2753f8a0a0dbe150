"""`/v1/images/edits` with OpenAI's own client: what is transparent is painted anew, all else stays."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from PIL import Image

from lollms_kernel.testing import ServerProcess

from .conftest import png

LIMIT = 120.0


@pytest.fixture(scope="module")
def client(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """A client of a server that draws with a tiny model."""
    own = tmp_path_factory.mktemp("masks")
    models = Path("models") / "diffusers_models"
    shutil.copytree(root / models / "tiny", own / models / "tiny")
    only = {"LOLLMS_LOAD_PLUGINS": "lollms-binding-diffusers,lollms-transport-wingman"}
    with (
        ServerProcess(root=own, env=only) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=LIMIT, max_retries=0) as opened,
    ):
        yield opened


def half(side: str) -> bytes:
    """A picture of 256×256 pixels with one half transparent."""
    picture = Image.new("RGBA", (256, 256), (200, 30, 30, 255))
    left = 0 if side == "left" else 128
    picture.paste((200, 30, 30, 0), (left, 0, left + 128, 256))
    target = io.BytesIO()
    picture.save(target, "PNG")
    return target.getvalue()


@pytest.mark.parametrize("sent_as", ["mask", "image"])
@pytest.mark.parametrize("clear", ["left", "right"])
def test_the_transparent_half_changes_and_the_opaque_one_stays(
    client: openai.OpenAI, sent_as: str, clear: str
) -> None:
    files: dict[str, Any] = {"image": ("a.png", png((256, 256)), "image/png")}
    files[sent_as] = ("half.png", half(clear), "image/png")

    def edited(seed: int) -> Any:
        wanted = {"strength": 1.0, "seed": seed, "steps": 3}
        answer = client.images.edit(model="images/tiny", prompt="a cat", **files, extra_body=wanted)
        assert answer.data is not None
        picture = Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json or "")))
        return np.asarray(picture.convert("RGB")).astype(int)

    changed = np.abs(edited(1) - edited(2)).mean(axis=(0, 2))
    left, right = changed[:112].mean(), changed[144:].mean()
    painted, kept = (left, right) if clear == "left" else (right, left)
    assert painted > 8 * kept
