"""Which functions a folder offers, what a broken file does, and what calling one does."""

from __future__ import annotations

import asyncio
import os
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lollms_function_loader as plugin
from lollms_function_loader import describing
from lollms_function_loader.arguments import Arguments
from lollms_function_loader.function import FileFunction
from lollms_function_loader.loader import load_functions
from lollms_function_loader.own import own_functions
from lollms_kernel.config.schema import MainConfig
from lollms_kernel.contracts import Function
from lollms_kernel.errors import GenerationFailed, InvalidRequest

own = {function.name: function for function in own_functions()}

ANY_VALUE = st.none() | st.integers() | st.text() | st.lists(st.integers())


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(textwrap.dedent(text))
    return file


def load(folder: Path, **config: object) -> dict[str, FileFunction]:
    given = msgspec.convert(config, MainConfig)
    return {f.name: f for f in load_functions(folder, given.functions, given.functions_config)}


def load_one(folder: Path, text: str) -> FileFunction:
    write(folder, "tools.py", text)
    (function,) = load(folder).values()
    return function


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Any]:
    """Makes the one function of a text; its process is gone afterwards."""
    made: list[FileFunction] = []

    def make(text: str) -> FileFunction:
        made.append(load_one(tmp_path, text))
        return made[-1]

    yield make
    for function in made:
        await function.close()


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

    def test_given_files_when_loaded_then_they_cannot_import_their_neighbours_and_the_server_runs_none_of_them(
        self, tmp_path: Path
    ) -> None:
        write(
            tmp_path,
            "json.py",
            f"open({str(tmp_path / 'pid')!r}, 'w').write(str(__import__('os').getpid()))\nasync def f(): ...\n",
        )
        write(tmp_path, "neighbour.py", "from json import f\n")

        assert list(load(tmp_path)) == ["json.f"]
        assert int((tmp_path / "pid").read_text()) != os.getpid()

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("import os\nos._exit(7)\n", "importing it ended the process (exit code 7)"),
            ("import os\nos.kill(os.getpid(), 9)\n", "importing it ended the process (exit code -9)"),
            ("while True: pass\n", "importing it takes longer than 2 s"),
        ],
    )
    def test_given_a_file_that_ends_or_stops_the_process_when_loaded_then_it_takes_no_other_along(
        self,
        tmp_path: Path,
        text: str,
        said: str,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(describing, "TIMEOUT", 2.0)
        for name, content in (("a", "async def f(): ...\n"), ("b", text), ("c", "async def f(): ...\n")):
            write(tmp_path, f"{name}.py", content)

        assert list(load(tmp_path)) == ["a.f", "c.f"]
        assert said in caplog.text

    def test_given_a_file_that_prints_when_loaded_then_that_disturbs_nothing(self, tmp_path: Path) -> None:
        write(tmp_path, "a.py", "print('{')\nimport os\nos.write(1, b'hello')\nasync def f(): ...\n")

        assert list(load(tmp_path)) == ["a.f"]

    def test_given_a_list_of_what_is_enabled_when_loaded_then_only_that_is_offered(
        self, tmp_path: Path
    ) -> None:
        write(tmp_path, "a.py", "async def one(): ...\nasync def two(): ...\n")
        write(tmp_path, "b.py", "async def one(): ...\nasync def two(): ...\n")
        write(tmp_path, "c.py", "raise AssertionError('it was read')\n")
        off, on = {"enabled": False}, {"enabled": True}

        found = load(tmp_path, functions_config={"a.two": off, "b": off, "b.one": on, "c": off})

        assert list(found) == ["a.one", "b.one"]

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


class TestDocumentation:
    @pytest.mark.parametrize(
        "text",
        [
            """
            Find a thing.

            Anywhere.

            Args:
                where: The place,
                    or none.
                count (int): How many: at most.

            Returns:
                Things.
            """,
            """
            Find a thing.

            Anywhere.

            :param str where: The place,
                or none.
            :param count: How many: at most.
            :return: Things.
            """,
        ],
    )
    def test_given_a_docstring_when_loaded_then_parameters_are_described(self, text: str) -> None:
        async def find(where: str, count: int = 1) -> None: ...

        find.__doc__ = text
        arguments = Arguments("find", find)

        assert arguments.description == "Find a thing.\n\nAnywhere."
        assert arguments.schema["properties"] == {
            "where": {"type": "string", "description": "The place, or none."},
            "count": {"type": "integer", "description": "How many: at most.", "default": 1},
        }


class TestCall:
    async def test_given_arguments_when_called_then_the_function_gets_them_and_its_value_comes_back(
        self, one: Any
    ) -> None:
        function = one("async def f(a: int, /, b: float = 2, *rest, c='x'):\n    return [a, b, rest, c]\n")

        assert await function.call({"a": 1}) == [1, 2, [], "x"]
        assert await function.call({"a": 1, "b": 3, "c": None}) == [1, 3.0, [], None]

    async def test_given_values_that_json_has_not_when_returned_then_they_become_plain_ones(
        self, one: Any
    ) -> None:
        function = one(
            """
            import datetime, pathlib, dataclasses
            @dataclasses.dataclass
            class Point:
                x: int
            async def f():
                day, path = datetime.date(2026, 1, 2), pathlib.PurePosixPath("/a")
                return {"day": day, "path": path, "point": Point(1), 3: {4}}
            """
        )

        assert await function.call({}) == {"day": "2026-01-02", "path": "/a", "point": {"x": 1}, "3": [4]}

    async def test_given_missing_arguments_when_called_then_they_are_named(self, one: Any) -> None:
        function = one("async def f(a, b, c=1, *args, **kwargs): ...\n")

        with pytest.raises(
            InvalidRequest, match=r"Missing required arguments for function 'tools\.f': a, b\."
        ):
            await function.call({"c": 2})

    async def test_given_an_argument_of_the_wrong_type_when_called_then_it_is_named_and_nothing_runs(
        self, one: Any
    ) -> None:
        function = one("async def f(count: int):\n    raise AssertionError('it ran')\n")

        with pytest.raises(
            InvalidRequest, match=r"Argument 'count' of function 'tools\.f' is wrong: Expected `int`"
        ):
            await function.call({"count": "three"})

    async def test_given_more_arguments_when_called_then_they_are_dropped_and_logged_without_their_values(
        self, one: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        function = one("async def f(a):\n    return a\n")

        assert await function.call({"a": 1, "extra": "hidden-value"}) == 1
        await function.close()
        assert "extra" in caplog.text
        assert "hidden-value" not in caplog.text

    async def test_given_a_function_that_takes_everything_when_called_then_it_gets_everything(
        self, one: Any
    ) -> None:
        function = one("async def f(a, **others):\n    return a, others\n")

        assert await function.call({"a": 1, "others": 2, "b": 3}) == [1, {"others": 2, "b": 3}]
        assert function.schema["additionalProperties"] is True

    @pytest.mark.parametrize("raised", ["ValueError('no luck')", "SystemExit('no luck')"])
    async def test_given_a_function_that_raises_when_called_then_the_error_names_it(
        self, one: Any, raised: str
    ) -> None:
        function = one(f"async def f():\n    raise {raised}\n")

        with pytest.raises(GenerationFailed, match=r"Error executing function 'tools\.f': \w+: no luck"):
            await function.call({})

    async def test_given_calls_at_once_when_they_await_then_they_run_side_by_side(self, one: Any) -> None:
        function = one(
            """
            import asyncio
            met = asyncio.Barrier(3)
            async def f():
                await met.wait()
                return "met"
            """
        )

        assert await asyncio.gather(*(function.call({}) for _ in range(3))) == ["met"] * 3

    @pytest.mark.parametrize("wait", ["await asyncio.sleep(60)", "time.sleep(60)"])
    async def test_given_a_function_that_takes_too_long_when_called_then_it_is_stopped_and_the_next_call_works(
        self, tmp_path: Path, wait: str
    ) -> None:
        write(
            tmp_path,
            "slow.py",
            f"import asyncio, time\nasync def f(now=False):\n    if not now:\n        {wait}\n    return 'done'\n",
        )
        (function,) = load(tmp_path, functions_config={"slow.f": {"timeout": 1.5}}).values()
        try:
            with pytest.raises(GenerationFailed, match=r"'slow\.f': it took longer than 1\.5 s"):
                await function.call({})

            assert await function.call({"now": True}) == "done"
        finally:
            await function.close()

    async def test_given_a_function_that_ends_its_process_when_called_then_the_next_call_works(
        self, one: Any
    ) -> None:
        function = one("import os\nasync def f(end=False):\n    os._exit(3) if end else None\n    return 1\n")

        with pytest.raises(GenerationFailed):
            await function.call({"end": True})
        assert await function.call({}) == 1

    async def test_given_a_limit_of_memory_when_a_function_wants_more_then_it_fails_alone(
        self, tmp_path: Path
    ) -> None:
        write(tmp_path, "big.py", "async def f(size: int):\n    return len(bytearray(size))\n")
        (function,) = load(tmp_path, functions={"memory_mb": 512}).values()
        try:
            with pytest.raises(GenerationFailed, match="MemoryError"):
                await function.call({"size": 1 << 30})
            assert await function.call({"size": 10}) == 10
        finally:
            await function.close()


class TestOwn:
    @pytest.mark.parametrize(
        ("expression", "value"),
        [
            ("1 + 2 * 3", 7),
            ("round(2349 * 17.5 / 100, 2)", 411.07),
            ("-2 ** 2", -4),
            ("2 ** 100 % 7", 2),
            ("sqrt(2) * max(1, pi)", 2**0.5 * 3.141592653589793),
        ],
    )
    async def test_given_an_expression_when_evaluated_then_the_value_is_right(
        self, expression: str, value: float
    ) -> None:
        assert await own["calculator.evaluate"].call({"expression": expression}) == pytest.approx(value)

    @pytest.mark.parametrize(
        "expression",
        [
            "__import__('os').system('true')", "().__class__", "[1][0]", "1 if 1 else 2", "'a' * 10", "open(1)",
            "9 ** 9 ** 9", "(9 ** 999) ** 999", "1 / 0", "(-8) ** 0.5", "10 ** 400 * 1.5", "1 +", "", "(" * 400,
            "max()", "1" * 501, "True", "exp(10000)", "lambda: 1", "x", "2j", "9**999 * 9**999 * 9**999",
        ],
    )  # fmt: skip
    async def test_given_what_is_no_calculation_when_evaluated_then_it_is_refused(
        self, expression: str
    ) -> None:
        with pytest.raises(InvalidRequest):
            await own["calculator.evaluate"].call({"expression": expression})

    @given(st.text(alphabet="0123456789+-*/%().e maxpilogsqrt,", max_size=60))
    async def test_given_any_text_when_evaluated_then_it_is_a_number_or_refused(
        self, expression: str
    ) -> None:
        try:
            value = await own["calculator.evaluate"].call({"expression": expression})
        except InvalidRequest:
            return
        assert isinstance(value, int | float)

    async def test_given_dates_when_asked_then_days_and_the_clock_are_told(self) -> None:
        days = await own["clock.days_between"].call({"start": "2026-02-27", "end": "2026-03-01"})
        moment = await own["clock.now"].call({"timezone": "UTC"})

        assert days == 2
        assert moment.keys() == {"date", "time", "weekday", "timezone"}
        for wrong in ("Nowhere/City", "../../etc/passwd", ""):
            with pytest.raises(InvalidRequest):
                await own["clock.now"].call({"timezone": wrong})


class TestArguments:
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
        return [function.name for function in found if function.name not in own]

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
