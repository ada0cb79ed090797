"""What is found to be wrong with a run, as commands say it: once a run, with what helps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from vaelab.errors import WriteError

if TYPE_CHECKING:
    from vaelab.training.finding import Finding
    from vaelab.training.run import Run


def new_lines(run: Run, found: Sequence[Finding]) -> list[str]:
    """Return lines on findings, in full where the log does not hold them yet; they are noted there.

    A resume cuts these notes off, since more training may mend what they say.
    """
    if not found or not run.log_file.exists():
        return [line for finding in found for line in _lines(finding)]
    noted = {note.get("about") for note in run.read_log("note")}
    fresh = [finding for finding in found if finding.about not in noted]
    if not run.unfinished():
        with suppress(WriteError):  # of others, it may be only read
            for finding in fresh:
                step = run.steps()
                run.append_log("note", {"step": step, "about": finding.about, "text": str(finding)})
    known = [finding.name for finding in found if finding.command and finding not in fresh]
    again = [f"Noted before ({run.log_file}): {', '.join(known)}."] if known else []
    return [*(line for finding in fresh for line in _lines(finding)), *again]


def _lines(finding: Finding) -> list[str]:
    return [finding.text, *([f"  Try: {finding.command}"] if finding.command else [])]
