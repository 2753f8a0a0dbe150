"""Functions that come with this package: bounded, without side effects, and so run in the server itself."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Coroutine, Mapping
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from lollms_kernel.contracts import Function
from lollms_kernel.errors import InvalidRequest

from .arguments import Arguments

MAX_LENGTH = 500
MAX_BITS = 4096
"""Of the numbers of a calculation: larger ones would take long, and nobody reads them."""

_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_NAMES = {"pi": math.pi, "e": math.e, "tau": math.tau}
_CALLS: Mapping[str, Callable[..., Any]] = {
    "abs": abs,
    "ceil": math.ceil,
    "cos": math.cos,
    "exp": math.exp,
    "floor": math.floor,
    "log": math.log,
    "log10": math.log10,
    "max": max,
    "min": min,
    "round": round,
    "sin": math.sin,
    "sqrt": math.sqrt,
    "tan": math.tan,
}


async def evaluate(expression: str) -> int | float:
    """Calculate an arithmetic expression such as `round(2349 * 17.5 / 100, 2)`.

    Args:
        expression: Numbers, + - * / // % **, parentheses, pi, e and abs, ceil, cos, exp, floor, log, log10, max, min,
            round, sin, sqrt, tan. No units, no thousands separators.
    """
    if len(expression) > MAX_LENGTH:
        raise InvalidRequest(f"An expression may have {MAX_LENGTH} characters, not {len(expression)}.")
    try:
        result: int | float = _value(ast.parse(expression.strip(), mode="eval").body)
    except InvalidRequest:
        raise
    except (SyntaxError, ValueError, ArithmeticError, TypeError, RecursionError, MemoryError) as error:
        raise InvalidRequest(f"'{expression[:80]}' cannot be calculated: {error}.") from error
    return result


async def now(timezone: str = "UTC") -> dict[str, str]:
    """The present date, time and day of the week.

    Args:
        timezone: A name such as Europe/Paris.
    """
    try:
        moment = datetime.now(ZoneInfo(timezone))
    except (OSError, ValueError, KeyError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise InvalidRequest(f"There is no time zone '{timezone[:50]}'.", hint="One is UTC.") from error
    return {
        "date": moment.date().isoformat(),
        "time": moment.strftime("%H:%M:%S"),
        "weekday": moment.strftime("%A"),
        "timezone": timezone,
    }


async def days_between(start: date, end: date) -> int:
    """The days from one date to another, negative if the other comes first.

    Args:
        start: A date as 2026-12-31.
        end: A date as 2026-12-31.
    """
    return (end - start).days


class OwnFunction(Function):
    """A function of this package."""

    def __init__(self, name: str, run: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        self.name = name
        self._run = run
        self._arguments = Arguments(name, run)
        self.description = self._arguments.description
        self.schema = self._arguments.schema

    async def call(self, arguments: Mapping[str, Any]) -> Any:
        """Run it. Raises InvalidRequest."""
        bound = self._arguments.bind(arguments)
        return await self._run(*bound.args, **bound.kwargs)


def own_functions() -> tuple[OwnFunction, ...]:
    """All of them."""
    return (
        OwnFunction("calculator.evaluate", evaluate),
        OwnFunction("clock.days_between", days_between),
        OwnFunction("clock.now", now),
    )


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return _checked(value)
        case ast.Name(id=name) if name in _NAMES:
            return _NAMES[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _checked(_BINARY[type(op)](_value(left), _value(right)))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _CALLS:
            return _checked(_CALLS[name](*map(_value, arguments)))
    raise InvalidRequest(
        f"'{ast.unparse(node)[:80]}' is nothing that can be calculated.",
        hint="Use numbers, + - * / // % ** and parentheses.",
    )


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and abs(exponent) * max(base.bit_length(), 1) > MAX_BITS:
        raise InvalidRequest("The power is too large to be calculated.")
    result = base**exponent
    if isinstance(result, complex):
        raise InvalidRequest("The result is no real number.")
    return _checked(result)


def _checked(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise InvalidRequest("A number gets too large to be calculated with.")
    return value
