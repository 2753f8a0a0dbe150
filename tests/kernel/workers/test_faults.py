from __future__ import annotations

import pytest

from lollms_kernel import errors
from lollms_kernel.workers.faults import Fault, as_lollms_error
from lollms_kernel.workers.frames import pack


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (ValueError("no"), errors.InvalidRequest, "Bad request: no"),
        (NotImplementedError("cannot"), errors.NotSupported, "cannot"),
        (NotImplementedError(), errors.NotSupported, "The binding does not support this."),
        (TimeoutError("slow"), errors.QueueTimeout, "Operation timed out: slow"),
        (KeyError("x"), errors.GenerationFailed, "KeyError: 'x'"),
        (RuntimeError(), errors.GenerationFailed, "RuntimeError"),
    ],
)
def test_an_exception_becomes_the_error_with_the_published_status(
    raised: Exception, kind: type[errors.LollmsError], message: str
) -> None:
    error = as_lollms_error(raised)

    assert type(error) is kind
    assert error.message == message


def test_an_error_of_ours_stays_the_same_object() -> None:
    error = errors.ContextOverflow("Too long.")

    assert as_lollms_error(error) is error


def test_a_fault_keeps_everything_that_a_client_sees() -> None:
    error = Fault.of(errors.QueueFull("Full.", hint="Wait.", retry_after=3.0)).error()

    assert type(error) is errors.QueueFull
    assert (error.message, error.hint, error.retry_after) == ("Full.", "Wait.", 3.0)


def test_a_failed_validation_stays_the_fault_of_the_request() -> None:
    problem = errors.Problem("missing", ("body", "text"), "Field required")

    error = Fault.of(errors.ValidationFailed([problem])).error()

    assert type(error) is errors.InvalidRequest
    assert error.message == "body.text: Field required"


def test_a_fault_can_be_sent_whatever_file_name_its_message_holds() -> None:
    fault = Fault.of(FileNotFoundError("no file 'caf\udce9'"))

    assert fault.message == "FileNotFoundError: no file 'caf?'"
    assert pack(fault)
