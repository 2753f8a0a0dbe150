"""Which functions a folder offers, what a broken file does, and what calling one does."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lollms_function_loader as plugin
from lollms_function_loader.arguments import Arguments
from lollms_function_loader.function import PythonFunction
from lollms_function_loader.loader import load_functions
from lollms_kernel.config.schema import MainConfig
from lollms_kernel.contracts import Function
from lollms_kernel.errors import GenerationFailed, InvalidRequest

ANY_VALUE = st.none() | st.integers() | st.text() | st.lists(st.integers())


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(textwrap.dedent(text))
    return file


def load(folder: Path) -> dict[str, PythonFunction]:
    return {function.name: function for function in load_functions(folder)}


def load_one(folder: Path, text: str) -> PythonFunction:
    write(folder, "tools.py", text)
    (function,) = load(folder).values()
    return function


class TestDiscovery:
    def test_given_files_when_loaded_then_their_own_public_coroutine_functions_are_offered(
        self, tmp_path: Path
    ) -> None:
        write(tmp_path, "a.py", "async def one(): ...\nasync def two(): ...\nasync def _private(): ...\n")
        write(
            tmp_path, "b.py", "from asyncio import sleep\ndef plain(): ...\nasync def one(): await sleep(0)\n"
        )
        write(
            tmp_path,
            "c-d.py",
            "async def stream():\n    yield 1\n\nclass Tool:\n    async def method(self): ...\n",
        )
        write(tmp_path, "_hidden.py", "async def hidden(): ...\n")
        write(tmp_path, "__init__.py", "async def package(): ...\n")
        write(tmp_path, "notes.txt", "async def text(): ...\n")
        (tmp_path / "sub").mkdir()
        write(tmp_path / "sub", "e.py", "async def deep(): ...\n")

        assert list(load(tmp_path)) == ["a.one", "a.two", "b.one"]

    def test_given_no_such_folder_when_loaded_then_there_is_none(self, tmp_path: Path) -> None:
        assert load(tmp_path / "missing") == {}

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("import asyncio\nasync def f(:\n", "line 2, are left out: SyntaxError"),
            ("x = 1\n\nraise RuntimeError('no luck')\n", "line 3, are left out: RuntimeError: no luck"),
            ("import surely_not_installed\n", "line 1, are left out: ModuleNotFoundError"),
            ("import sys\nsys.exit(3)\n", "line 2, are left out: SystemExit: 3"),
            ("x = '\0'\n", "are left out: "),
        ],
    )
    def test_given_a_broken_file_when_loaded_then_one_warning_names_its_line_and_the_others_load(
        self, tmp_path: Path, text: str, said: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        file = write(tmp_path, "broken.py", text)
        write(tmp_path, "good.py", "async def f(): ...\n")

        assert list(load(tmp_path)) == ["good.f"]
        (record,) = caplog.records
        assert str(file) in record.getMessage()
        assert said in record.getMessage()

    def test_given_links_when_loaded_then_those_that_lead_out_are_left_out(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder = tmp_path / "functions"
        folder.mkdir()
        write(folder, "inside.py", "async def f(): ...\n")
        (folder / "alias.py").symlink_to(folder / "inside.py")
        (folder / "escape.py").symlink_to(write(tmp_path, "outside.py", "raise SystemExit\n"))

        assert list(load(folder)) == ["alias.f", "inside.f"]
        assert "escape.py is left out" in caplog.text

    def test_given_files_when_loaded_then_sys_path_and_other_modules_stay_as_they_are(
        self, tmp_path: Path
    ) -> None:
        write(tmp_path, "json.py", "async def f(): ...\n")
        write(tmp_path, "neighbour.py", "from json import f\n")
        path, modules = list(sys.path), set(sys.modules)

        assert list(load(tmp_path)) == ["json.f"]
        assert sys.path == path
        assert set(sys.modules) - modules == {"lollms_functions_json"}

    def test_given_a_dataclass_in_a_file_when_loaded_then_it_works_as_a_parameter(
        self, tmp_path: Path
    ) -> None:
        function = load_one(
            tmp_path,
            """
            from __future__ import annotations
            from dataclasses import dataclass

            @dataclass
            class Point:
                x: int

            async def move(point: Point): ...
            """,
        )

        assert function.schema["properties"]["point"] == {"$ref": "#/$defs/Point"}
        assert function.schema["$defs"]["Point"]["properties"] == {"x": {"type": "integer"}}


class TestSchema:
    def test_given_a_signature_when_loaded_then_the_schema_says_types_defaults_and_what_is_required(
        self, tmp_path: Path
    ) -> None:
        function = load_one(
            tmp_path,
            '''
            from __future__ import annotations
            from typing import Annotated, Literal, Optional
            import msgspec

            async def search(
                query: str,
                limit: Annotated[int, msgspec.Meta(ge=1)] = 10,
                ratio: float = 0.5,
                exact: bool = False,
                tags: list[str] = [],
                options: dict | None = None,
                order: Literal["up", "down"] = "up",
                author: Optional[str] = None,
                anything=None,
            ) -> list[str]:
                """Look something up."""
            ''',
        )

        assert function.description == "Look something up."
        assert function.schema == {
            "type": "object",
            "properties": {
                "query": {"type": "string"},
                "limit": {"type": "integer", "minimum": 1, "default": 10},
                "ratio": {"type": "number", "default": 0.5},
                "exact": {"type": "boolean", "default": False},
                "tags": {"type": "array", "items": {"type": "string"}, "default": []},
                "options": {"anyOf": [{"type": "object"}, {"type": "null"}], "default": None},
                "order": {"enum": ["down", "up"], "default": "up"},
                "author": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
                "anything": {"default": None},
            },
            "required": ["query"],
            "additionalProperties": False,
        }

    def test_given_types_that_json_has_not_when_loaded_then_any_value_goes(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        function = load_one(
            tmp_path,
            """
            from collections.abc import Callable
            class Own: ...
            async def f(a: Own, b: Callable[[], int], c: list[int] | list[str], d=Own()): ...
            """,
        )

        assert function.schema["properties"] == {"a": {}, "b": {}, "c": {}, "d": {}}
        assert not caplog.records

    def test_given_annotations_that_do_not_exist_when_loaded_then_any_value_goes_and_the_log_says_so(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        function = load_one(tmp_path, "async def f(a: 'Missing', b: int): ...\n")

        assert function.schema["properties"] == {"a": {}, "b": {}}
        assert "'Missing' is not defined" in caplog.text


class TestCall:
    async def test_given_arguments_when_called_then_the_function_gets_them_and_its_value_comes_back(
        self, tmp_path: Path
    ) -> None:
        function = load_one(
            tmp_path, "async def f(a: int, /, b: float = 2, *rest, c='x'):\n    return [a, b, rest, c]\n"
        )

        assert await function.call({"a": 1}) == [1, 2, (), "x"]
        assert await function.call({"a": 1, "b": 3, "c": None}) == [1, 3.0, (), None]

    async def test_given_missing_arguments_when_called_then_they_are_named(self, tmp_path: Path) -> None:
        function = load_one(tmp_path, "async def f(a, b, c=1, *args, **kwargs): ...\n")

        with pytest.raises(
            InvalidRequest, match=r"Missing required arguments for function 'tools\.f': a, b\."
        ):
            await function.call({"c": 2})

    async def test_given_an_argument_of_the_wrong_type_when_called_then_it_is_named_and_nothing_runs(
        self, tmp_path: Path
    ) -> None:
        function = load_one(tmp_path, "async def f(count: int):\n    raise AssertionError('it ran')\n")

        with pytest.raises(
            InvalidRequest, match=r"Argument 'count' of function 'tools\.f' is wrong: Expected `int`"
        ):
            await function.call({"count": "three"})

    async def test_given_more_arguments_when_called_then_they_are_dropped_and_logged_without_their_values(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        function = load_one(tmp_path, "async def f(a):\n    return a\n")

        assert await function.call({"a": 1, "extra": "hidden-value"}) == 1
        assert "extra" in caplog.text
        assert "hidden-value" not in caplog.text

    async def test_given_a_function_that_takes_everything_when_called_then_it_gets_everything(
        self, tmp_path: Path
    ) -> None:
        function = load_one(tmp_path, "async def f(a, **others):\n    return a, others\n")

        assert await function.call({"a": 1, "others": 2, "b": 3}) == (1, {"others": 2, "b": 3})
        assert function.schema["additionalProperties"] is True

    @pytest.mark.parametrize("raised", ["ValueError('no luck')", "SystemExit('no luck')"])
    async def test_given_a_function_that_raises_when_called_then_the_error_names_it(
        self, tmp_path: Path, raised: str
    ) -> None:
        function = load_one(tmp_path, f"async def f():\n    raise {raised}\n")

        with pytest.raises(GenerationFailed, match=r"Function 'tools\.f' failed: \w+: no luck") as caught:
            await function.call({})
        assert caught.value.__cause__ is not None

    @given(
        st.dictionaries(
            st.sampled_from(["a", "b", "other"]),
            st.none() | st.integers() | st.text() | st.lists(st.integers()),
        )
    )
    def test_given_any_arguments_when_bound_then_they_fit_or_the_request_is_wrong(
        self, arguments: dict[str, Any]
    ) -> None:
        async def run(a: int, b: list[int] | None = None) -> None: ...

        try:
            bound = Arguments("run", run).bind(arguments)
        except InvalidRequest as error:
            assert error.hint
        else:
            assert isinstance(bound.arguments["a"], int)
            assert set(bound.arguments) == {"a", "b"}


class TestHook:
    def registered(self, **paths: str | None) -> list[str]:
        found: list[Function] = []
        plugin.register_functions(found.append, msgspec.convert({"paths": paths}, MainConfig))
        return [function.name for function in found]

    def test_given_folders_when_the_hook_is_called_then_the_users_functions_come_last_and_so_win(
        self, tmp_path: Path
    ) -> None:
        for folder in ("own", "examples"):
            (tmp_path / folder).mkdir()
            write(tmp_path / folder, f"{folder}.py", "async def roll(): ...\n")
        own, examples = str(tmp_path / "own"), str(tmp_path / "examples")

        assert self.registered(functions_folder=own, example_functions_folder=examples) == [
            "examples.roll",
            "own.roll",
        ]
        assert self.registered(functions_folder=own, example_functions_folder=None) == ["own.roll"]
