"""The errors that this package raises itself.

An author meets InvalidError while a file is imported; the others reach the caller of a function as the kind of an error event
(docs/protocol/runner.md). What an author's own code raises is never wrapped.
"""

from __future__ import annotations


class Error(Exception):
    """All errors of this package."""


class InvalidError(Error):
    """A declaration that cannot work. The message says what to write instead."""


class CallError(Error):
    """A call that was not made, or whose result could not be told; kind is what the error event says."""

    kind = "exception"


class MethodError(CallError):
    """The object has no such method, or has it for another kind of call."""

    kind = "method"


class ArgumentError(CallError):
    """The arguments do not fit the signature of the method, or the parameters those of the class."""

    kind = "argument"


class ResultError(CallError):
    """What a method returned cannot be written as JSON, or is no HTTP response."""

    kind = "result"


class ProtocolError(Error):
    """The host said something that the protocol does not have, or not at this point."""
