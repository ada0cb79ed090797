"""Keys of cases, which are names of folders."""

from __future__ import annotations

import hashlib
import re

from vaelab.opening import DEVICES

_LONGEST = 200
_KEY = re.compile(r"[a-z0-9][a-z0-9.\-]*")


def slug(name: str) -> str:
    """Return a name of a folder: letters, digits and hyphens only, and not too long for one."""
    slug = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "case"
    if slug.partition(".")[0] in DEVICES:
        slug = f"case-{slug}"
    if len(slug) > _LONGEST:
        slug = f"{slug[:_LONGEST]}-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:8]}"
    return slug


def check_key(key: str) -> str:
    """Return a key of a case; raises `ValueError` for one that is no name of a folder."""
    if not _KEY.fullmatch(key) or len(key) > _LONGEST + 40 or key.partition(".")[0] in DEVICES:
        raise ValueError(f"{key!r} is no key of a case: small letters, digits, dots and hyphens")
    return key
