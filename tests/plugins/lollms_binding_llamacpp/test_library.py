"""Which models an instance offers, and what is said of them."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from gguf.constants import GGMLQuantizationType as Quantization

from lollms_binding_llamacpp import LlamaCppBinding
from lollms_binding_llamacpp.library import PACKAGED
from lollms_kernel.errors import ModelNotFound

MakeBinding = Callable[..., Awaitable[LlamaCppBinding]]
PACKAGED_NAMES = sorted(path.stem for path in PACKAGED.glob("*.gguf"))


async def names(binding: LlamaCppBinding) -> list[str]:
    return [info.name for info in await binding.list_models()]


async def test_the_folder_three_levels_below_it_and_the_packaged_models_are_listed(
    make_model: Any, make_binding: MakeBinding, models: Path
) -> None:
    make_model("b.gguf")
    make_model("A.GGUF")
    make_model("maker/repo/deep/c.gguf")
    make_model("far/too/deep/really/d.gguf")
    (models / "notes.txt").write_text("no model")
    (models / "folder.gguf").mkdir()
    listed = await names(await make_binding())
    assert listed == ["A.GGUF", "b.gguf", "maker/repo/deep/c.gguf", *PACKAGED_NAMES]


async def test_a_download_has_short_names_as_long_as_they_are_clear(
    make_model: Any, make_binding: MakeBinding
) -> None:
    make_model("maker/one-GGUF/one.Q4_K_M.gguf")
    make_model("maker/two-GGUF/two.Q8_0.gguf")
    make_model("maker/two-GGUF/two.F16.gguf")
    make_model("other/two-GGUF/two.Q8_0.gguf")
    binding = await make_binding()

    async def found(name: str) -> str:
        return (await binding.get_model_info(name)).name

    assert await found("maker/one-GGUF") == "maker/one-GGUF/one.Q4_K_M.gguf"
    assert await found("maker/two-GGUF:q8_0") == "maker/two-GGUF/two.Q8_0.gguf"
    assert await found("two.F16") == "maker/two-GGUF/two.F16.gguf"
    for unclear in ("maker/two-GGUF", "two.Q8_0.gguf", "maker/two-GGUF:Q4_0", "maker", "maker/one-GGUF:"):
        with pytest.raises(ModelNotFound):
            await found(unclear)


async def test_without_a_folder_the_packaged_models_are_left(make_binding: MakeBinding, models: Path) -> None:
    shutil.rmtree(models.parent)
    assert await names(await make_binding()) == PACKAGED_NAMES


async def test_another_folder_is_relative_to_the_root(
    make_model: Any, make_binding: MakeBinding, tmp_path: Path, models: Path
) -> None:
    shutil.copytree(make_model().parent, tmp_path / "elsewhere")
    shutil.rmtree(models)
    assert "alphabet.gguf" in await names(await make_binding(models_folder="elsewhere"))
    assert "alphabet.gguf" in await names(await make_binding(models_folder=str(tmp_path / "elsewhere")))


async def test_one_file_by_path_comes_first_and_is_the_default(
    make_model: Any, make_binding: MakeBinding, tmp_path: Path
) -> None:
    make_model("a.gguf")
    (tmp_path / "mine").mkdir()
    shutil.copy(make_model("x.gguf"), tmp_path / "mine" / "own.gguf")
    binding = await make_binding(model_path="mine/own.gguf")
    assert (await names(binding))[0] == "own.gguf"
    assert (await binding.get_model_info()).name == "own.gguf"


async def test_names_work_with_and_without_the_suffix(make_model: Any, make_binding: MakeBinding) -> None:
    make_model("maker/c.gguf")
    binding = await make_binding(default_model="maker/c")
    for name in ("maker/c", "maker/c.gguf", None):
        assert (await binding.get_model_info(name)).name == "maker/c.gguf"


async def test_no_name_leads_out_of_the_folder(
    make_model: Any, make_binding: MakeBinding, models: Path
) -> None:
    shutil.move(make_model(), models.parent / "outside.gguf")
    binding = await make_binding()
    for name in (
        "../outside.gguf",
        "..",
        "/etc/passwd",
        str(models.parent / "outside.gguf"),
        "a/../../outside.gguf",
    ):
        with pytest.raises(ModelNotFound) as caught:
            await binding.get_model_info(name)
        assert caught.value.hint


async def test_links_that_the_operator_made_are_followed(
    make_model: Any, make_binding: MakeBinding, models: Path, tmp_path: Path
) -> None:
    shutil.move(make_model(), tmp_path / "elsewhere.gguf")
    (models / "linked.gguf").symlink_to(tmp_path / "elsewhere.gguf")
    (models / "dangling.gguf").symlink_to(tmp_path / "nowhere.gguf")
    (models / "loop").symlink_to(models)
    assert await names(await make_binding()) == ["linked.gguf", "loop/linked.gguf", *PACKAGED_NAMES]


async def test_shards_are_one_model(make_model: Any, make_binding: MakeBinding, models: Path) -> None:
    first = make_model("big-00001-of-00002.gguf")
    shutil.copy(first, models / "big-00002-of-00002.gguf")
    make_model("part-00001-of-00003.gguf")
    binding = await make_binding()
    assert await names(binding) == ["big-00001-of-00002.gguf", "part-00001-of-00003.gguf", *PACKAGED_NAMES]
    whole = await binding.get_model_info("big-00001-of-00002")
    assert whole.size == 2 * first.stat().st_size
    assert whole.details["shards"] == 2
    assert "1 of its 3" in (await binding.get_model_info("part-00001-of-00003")).details["error"]


async def test_files_that_only_belong_to_models_are_left_out(
    make_model: Any, make_binding: MakeBinding
) -> None:
    projector = make_model("mmproj.gguf")
    llama, clip = (struct.pack("<Q", len(name)) + name for name in (b"llama", b"clip"))
    projector.write_bytes(projector.read_bytes().replace(llama, clip))
    assert await names(await make_binding()) == PACKAGED_NAMES


async def test_what_is_known_of_a_model(make_model: Any, make_binding: MakeBinding) -> None:
    path = make_model(quantization=Quantization.Q8_0, n_ctx=512)
    info = await (await make_binding()).get_model_info("alphabet")
    assert info.name == "alphabet.gguf"
    assert info.model_type == "ttt"
    assert info.format == "gguf"
    assert info.size == path.stat().st_size
    assert info.family == "llama"
    assert info.families == ("llama",)
    assert info.quantization_level == "Q8_0"
    assert info.parameter_size == "872.4K"
    assert info.context_size == 512
    assert info.license == "Apache-2.0"
    assert "<|im_start|>" in str(info.template)
    assert str(info.modified_at).endswith("Z")
    assert info.details["vocabulary_size"] == 264
    assert info.details["loaded"] is False


@pytest.mark.parametrize(
    ("settings", "context"),
    [
        ({"n_ctx": 100}, 100),
        ({"n_ctx": 0}, 512),
        ({"n_ctx": 9999}, 512),
        ({"n_ctx": 9999, "compress_pos_emb": 2}, 1024),
        ({"n_ctx": 9999, "rope_freq_base": 1e6}, 9999),
    ],
)
async def test_the_context_is_the_smaller_of_setting_and_training(
    make_model: Any, make_binding: MakeBinding, settings: Any, context: int
) -> None:
    make_model(n_ctx=512)
    assert (await (await make_binding(**settings)).get_model_info("alphabet")).context_size == context


async def test_a_damaged_file_is_listed_with_what_is_wrong(
    make_model: Any, make_binding: MakeBinding, models: Path
) -> None:
    make_model()
    (models / "bad.gguf").write_text("no model")
    infos = {info.name: info for info in await (await make_binding()).list_models()}
    assert "GGUF" in infos["bad.gguf"].details["error"]
    assert "error" not in infos["alphabet.gguf"].details


async def test_a_file_that_was_replaced_is_read_again(make_model: Any, make_binding: MakeBinding) -> None:
    make_model(n_ctx=512)
    binding = await make_binding()
    assert (await binding.get_model_info("alphabet")).context_size == 512
    make_model(n_ctx=1024, template=None)
    assert (await binding.get_model_info("alphabet")).context_size == 1024
