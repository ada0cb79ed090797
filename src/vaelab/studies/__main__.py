"""A worker process: ``python -m vaelab.studies FOLDER``, started by `watch.run_study`."""

from __future__ import annotations

import os
import sys
import threading

from vaelab.studies.study import Study
from vaelab.studies.work import work
from vaelab.training.interrupt import Interrupted


def _end_with_parent() -> None:
    """End at once when the parent is gone: what is lost is what came after the last checkpoint."""
    while os.read(0, 1024):  # not through sys.stdin, whose lock would be held at the end
        pass
    os._exit(1)


def main() -> int:
    """Work on the study until no run is left."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(Study(sys.argv[1]), lambda text: print(text, file=sys.stderr, flush=True))
    except (Interrupted, KeyboardInterrupt):
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
