"""Which words name a part, or images without labels: whole, or joined to others by a mark.

``Training``, ``test_set`` and ``Testdaten`` are parts whatever is beside them. ``seg_train``,
``trainA`` and ``test-cats`` join a part to a rest, and could be classes as well: ``test tube``.
"""

from __future__ import annotations

import re

_STEMS = {
    **dict.fromkeys(("train", "training", "trainings", "trn"), 0),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "publictest"), 1),
    **dict.fromkeys(("validierung", "validierungs"), 1),
    **dict.fromkeys(("test", "testing", "tst", "privatetest"), 2),
}
_BEHIND = "(set|data|images|split|daten|bilder)$"
_LABELLED = ("labelled", "labeled", "annotated")
_UNLABELLED = ("unlabelled", "unlabeled", "nolabel", "nolabels", "unannotated")
_PREDICTED = ("pred", "predict", "prediction", "predictions")
_JOINT = re.compile(r"[\W\d_]+|(?<=[a-z])(?=[A-Z])")


def plain(word: str) -> str:
    """A header in small letters and digits alone."""
    return re.sub(r"[\W_]", "", word.lower())


def part_of_word(word: str) -> int | None:
    """The part that a word names, such as ``Training``, ``test_set`` or ``val``; None for none."""
    plain = _letters(word)
    return _STEMS.get(plain, _STEMS.get(re.sub(_BEHIND, "", plain)))


def split_part(word: str) -> tuple[int, str] | None:
    """The part that a word names or holds at an end, and its rest: ``trainA`` is ``(0, "A")``."""
    whole = part_of_word(word)
    if whole is not None:
        return whole, ""
    found = [(part_of_word(end), rest) for end, rest in _ends(word)]
    parts = {part for part, _ in found if part is not None}
    if len(parts) != 1:  # none, or both, such as train_test
        return None
    return next((part, rest) for part, rest in found if part is not None)


def is_labelled(word: str) -> bool:
    """Whether a folder says of its images that they have labels, and no more."""
    return re.sub(_BEHIND, "", _letters(word)) in _LABELLED


def is_unlabelled(word: str) -> bool:
    """Whether a folder says of its images that they have no labels."""
    words = {word, *(end for end, _ in _ends(word))}
    return any(re.sub(_BEHIND, "", _letters(each)) in _UNLABELLED for each in words)


def is_predicted(word: str) -> bool:
    """Whether a folder beside parts holds what is to be predicted, and so has no labels."""
    return any(_letters(end) in _PREDICTED for end in (word, *(end for end, _ in _ends(word))))


def _letters(word: str) -> str:
    return re.sub(r"[^a-z]", "", word.lower())


def _ends(word: str) -> list[tuple[str, str]]:
    """The first and the last of words that are joined, each with the rest."""
    word = re.sub(r"^[\W_]+|[\W_]+$", "", word)
    joints = [*_JOINT.finditer(word)]
    if not joints:
        return []
    first, last = joints[0], joints[-1]
    return [
        (word[: first.start()], word[first.end() :]),
        (word[last.end() :], word[: last.start()]),
    ]
