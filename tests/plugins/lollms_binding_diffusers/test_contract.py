"""The kernel's contract for bindings, kept by real pipelines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest

from lollms_binding_diffusers import DiffusersBinding
from lollms_kernel.contracts import Binding
from lollms_kernel.testing.binding_contract import BindingContract
from lollms_kernel.types import GenerateRequest

from .conftest import QUICK


class TestDiffusers(BindingContract):
    parameters = QUICK
    prompt = "a cat"

    @pytest.fixture
    async def binding(
        self, open_binding: Callable[..., Awaitable[DiffusersBinding]]
    ) -> AsyncIterator[Binding]:
        yield await open_binding()

    async def request_for(self, binding: Binding) -> GenerateRequest:
        request = await super().request_for(binding)
        return msgspec.structs.replace(request, generation_type="tti")
