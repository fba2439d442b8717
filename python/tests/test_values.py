"""Results as JSON, without a runner."""

from __future__ import annotations

import array
import collections
import dataclasses
import enum
from typing import Any

import pytest

from thaw.errors import ResultError
from thaw.values import to_json


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = None


class Colour(enum.Enum):
    RED = "red"


class Scalar:
    """What a scalar of numpy looks like from here."""

    dtype = "float32"

    def tolist(self) -> float:
        return 1.5


class Impostor:
    def tolist(self) -> list[int]:
        return [1]


@pytest.mark.parametrize(
    "value, text",
    [
        (None, "null"),
        ((1, [True, 2.5]), "[1,[true,2.5]]"),
        ({"a": {1: "ä"}}, '{"a":{"1":"\\u00e4"}}'),
        (Point(Point(1), [Point(2)]), '{"x":{"x":1,"y":null},"y":[{"x":2,"y":null}]}'),
        (collections.namedtuple("Pair", "a b")(1, 2), "[1,2]"),
        (Colour.RED, '"red"'),
        ([Scalar(), {"a": Scalar()}], '[1.5,{"a":1.5}]'),
        (array.array("d", [1, 2]), "[1.0,2.0]"),
        ("\ud800", '"\\ud800"'),
    ],
)
def test_what_is_nearly_json_is_converted(value: object, text: str) -> None:
    assert to_json(value) == text


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value, message",
    [
        (Impostor(), "result is of type test_values.Impostor"),
        ([1, {"a": (1, object())}], "result[1]['a'][1] is of type object"),
        ({"x": float("inf")}, "result['x'] is inf"),
        ({b"x": 1}, "result has a key of type bytes"),
        (Point(1, {3}), "result.y is of type set"),
        (memoryview(b"x"), "result is of type memoryview"),
        (complex(1, 2), "result is of type complex"),
        (nested(100_000), "is nested too deeply"),
    ],
)
def test_what_is_not_says_where(value: object, message: str) -> None:
    with pytest.raises(ResultError) as error:
        to_json(value)
    assert message in str(error.value)


def test_a_conversion_that_fails_raises_what_it_raises() -> None:
    class Broken(Scalar):
        def tolist(self) -> float:
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        to_json([Broken()])
