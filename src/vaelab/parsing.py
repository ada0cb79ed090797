"""YAML and JSON from elsewhere: plain values of bounded size, or a `ValueError` in words."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MAX_BYTES = 2**24
"""Length of a YAML file, at most."""

_HALF = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Half a character, which no text has; U+DC80 to U+DCFF stand for bytes of the names of files."""

_ESCAPED = re.compile(rb"\\u[dD][89a-fA-F]")
_DEEPEST, _MOST, _MERGED = 64, 1_000_000, 10_000
_DATE = "tag:yaml.org,2002:timestamp"
_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """The safe loader, without dates, for which no setting has a use, and without twice a key."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Node | None:
        """Return the next node; raises `ValueError` for one that is too deep to be parsed soon."""
        self.depth += 1
        if self.depth > _DEEPEST + 1:
            raise ValueError(f"nested more than {_DEEPEST} deep")
        node: Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        """Return the node of a mapping; raises `ConstructorError` for a key given twice."""
        node: MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key, ScalarNode) else None
            if name in seen and key.tag != _MERGE:
                raise _refused(f"{key.value!r} is given twice", key)
            seen.add(name or id(key))
        return node

    def flatten_mapping(self, node: MappingNode) -> None:
        """Merge ``<<`` into a mapping, as long as it stays small."""
        for key, value in node.value:
            if key.tag == _MERGE and isinstance(value, SequenceNode) and len(value.value) > 100:
                raise _refused("more than 100 mappings are merged", key)
        super().flatten_mapping(node)
        if len(node.value) > _MERGED:
            raise _refused(f"a mapping of more than {_MERGED:,} keys", node)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != _DATE]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _refused(why: str, node: Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, why, node.start_mark)


def parse_yaml(text: str | bytes) -> Any:
    """Return a YAML document as dictionaries, lists, text, numbers, truth values and None.

    Raises:
        ValueError: it is none, is deeper or (its aliases written out) larger than any settings
            are, or holds something else.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"longer than {MAX_BYTES // 2**20} MiB")
    try:
        loader = _Loader(text)
        try:
            values = loader.get_single_data()
        finally:
            loader.dispose()
        _size(values, 0, {})
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except Exception as error:  # a parser of hostile text raises nearly anything
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None
    return values


def _size(values: Any, depth: int, known: dict[int, int]) -> int:
    """Return how many values there are with aliases written out."""
    if id(values) in known:
        return known[id(values)]
    if depth > _DEEPEST:
        raise ValueError(f"nested more than {_DEEPEST} deep")
    if isinstance(values, dict):
        total = 1 + sum(
            _size(key, depth + 1, known) + _size(value, depth + 1, known)
            for key, value in values.items()
        )
    elif isinstance(values, list):
        total = 1 + sum(_size(value, depth + 1, known) for value in values)
    elif isinstance(values, str):
        return _text(values)
    elif values is None or isinstance(values, (int, float)):
        return 1
    else:
        raise ValueError(f"holds {type(values).__name__}, not text or a number")
    if total > _MOST:
        raise ValueError(f"more than {_MOST:,} values")
    known[id(values)] = total
    return total


def _text(value: str) -> int:
    if half := _HALF.search(value):
        raise ValueError(f"holds half a character, {half[0]!r}")
    return 1


def parse_json(data: bytes) -> Any:
    """Return a JSON document; raises `ValueError` for all that is none, NaN and ∞ included."""
    try:
        values = json.loads(data, parse_constant=_no_number)
        if _ESCAPED.search(data):
            _text(json.dumps(values, ensure_ascii=False))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return values


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
