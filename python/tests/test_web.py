"""Responses of web endpoints, without a runner."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from thaw import Response
from thaw.web import response_fields


@pytest.mark.parametrize(
    "result, status, headers, body",
    [
        ("ä", 200, [["content-type", "text/plain; charset=utf-8"]], "ä".encode()),
        (b"\x00", 200, [["content-type", "application/octet-stream"]], b"\x00"),
        ({"a": 1}, 200, [["content-type", "application/json"]], b'{"a":1}'),
        ([1], 200, [["content-type", "application/json"]], b"[1]"),
        (None, 204, [], b""),
        (Response(), 200, [["content-type", "application/octet-stream"]], b""),
        (Response(None, 404), 404, [], b""),
        (Response("<p>", headers={"Content-Type": "text/html"}), 200, [["Content-Type", "text/html"]], b"<p>"),
        (
            Response({"a": 1}, 201, [("set-cookie", "a"), ("set-cookie", "b")]),
            201,
            [["content-type", "application/json"], ["set-cookie", "a"], ["set-cookie", "b"]],
            b'{"a":1}',
        ),
    ],
)
def test_a_body_by_itself_or_a_response(result: Any, status: int, headers: list[list[str]], body: bytes) -> None:
    assert response_fields(result) == {"status": status, "headers": headers, "body": base64.b64encode(body).decode()}
