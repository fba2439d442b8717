"""Requests and responses of web endpoints."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Sequence, Union
from urllib.parse import parse_qs

from .errors import ArgumentError, ResultError
from .values import to_json

Headers = Union[Mapping[str, str], Sequence[Sequence[str]]]


@dataclass(frozen=True)
class Request:
    """An HTTP request. query is the part behind the question mark, as it came."""

    method: str = "GET"
    path: str = "/"
    query: str = ""
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""

    def header(self, name: str, default: str | None = None) -> str | None:
        """The first header of that name, in any case of letters."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), default)

    @property
    def query_params(self) -> dict[str, list[str]]:
        """The query, decoded: all values of each name."""
        return parse_qs(self.query, keep_blank_values=True)

    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode()

    def json(self) -> Any:
        """The body, read as JSON. Raises ValueError if it is none."""
        return json.loads(self.body)


@dataclass
class Response:
    """An HTTP response. A body that is a dict, a list, a number or a dataclass is sent as JSON."""

    body: Any = b""
    status: int = 200
    headers: Headers = ()


def request_from(fields: object) -> Request:
    """A request as the host sends it. Raises ArgumentError if it is none."""
    if not isinstance(fields, dict):
        raise ArgumentError("the request is no object")
    try:
        body = base64.b64decode(fields.get("body") or "", validate=True)
        headers = [(str(key), str(value)) for key, value in fields.get("headers") or ()]
    except (binascii.Error, TypeError, ValueError) as err:
        raise ArgumentError(f"the request cannot be read: {err}") from None
    return Request(
        method=str(fields.get("method") or "GET"),
        path=str(fields.get("path") or "/"),
        query=str(fields.get("query") or ""),
        headers=headers,
        body=body,
    )


def response_fields(result: object) -> dict[str, Any]:
    """What an endpoint returned, as the host wants it: status, headers and body. Raises ResultError if it is no response."""
    response = result if isinstance(result, Response) else Response(result, status=204 if result is None else 200)
    if type(response.status) is not int or not 100 <= response.status <= 999:
        raise ResultError(f"the status of the response is {response.status!r}: it is a number from 100 to 999")
    body, kind = _body(response.body)
    headers = _headers(response.headers)
    if kind and not any(key.lower() == "content-type" for key, _ in headers):
        headers.insert(0, ["content-type", kind])
    return {"status": response.status, "headers": headers, "body": base64.b64encode(body).decode("ascii")}


def _body(body: object) -> tuple[bytes, str]:
    if body is None:
        return b"", ""
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body), "application/octet-stream"
    if isinstance(body, str):
        return body.encode(), "text/plain; charset=utf-8"
    return to_json(body).encode(), "application/json"


def _headers(headers: Headers) -> list[list[str]]:
    pairs: Iterable[Sequence[str]] = headers.items() if isinstance(headers, Mapping) else headers
    checked = []
    for pair in pairs:
        if len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise ResultError(f"the response has the header {pair!r}: it is a name and a value, both texts")
        if any(c in part for part in pair for c in "\r\n\0"):
            raise ResultError(f"the response has the header {pair!r}, with a line break in it")
        checked.append([pair[0], pair[1]])
    return checked


