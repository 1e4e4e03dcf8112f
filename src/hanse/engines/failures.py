"""An exception on its way from a worker process to the process that uses it."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, NamedTuple

from hanse.engines.messages import Place, read, write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hanse.engines.arena import Arena


class Parts(NamedTuple):
    """An exception that its own class cannot make of its arguments (a HanseError's have names)."""

    kind: type[BaseException]
    arguments: tuple[object, ...]
    attributes: dict[str, object]


class Failure(NamedTuple):
    """An exception, and where it was raised, as text."""

    error: BaseException | Parts
    trace: str


def send(error: BaseException, arena: Arena, at: int) -> Place:
    """Write an exception into an arena: whole, or as the nearest of its classes that can be sent.

    A class that is defined within a function has no name that another process could find it by.
    """
    trace = "".join(traceback.format_exception(error))
    for candidate in _candidates(error):
        try:
            place = write(Failure(candidate, trace), arena, at)
            if str(received(read(arena, place, copy=True))) in {str(error), _words(error)}:
                return place
        except Exception:  # noqa: BLE001, S112 - parts of the user's own may raise anything
            continue
    return write(Failure(RuntimeError(_words(error)), trace), arena, at)


def _candidates(error: BaseException) -> Iterator[BaseException | Parts]:
    yield error
    yield Parts(type(error), error.args, vars(error))
    for base in type(error).__mro__:
        if issubclass(base, BaseException):
            yield Parts(base, (_words(error),), {})


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def received(failure: Failure) -> BaseException:
    """The exception, with its class, arguments and attributes."""
    if isinstance(failure.error, BaseException):
        return failure.error
    kind, arguments, attributes = failure.error
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    vars(error).update(attributes)
    return error
