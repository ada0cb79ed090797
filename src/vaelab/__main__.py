"""``python -m vaelab``, which is also what ``torchrun -m vaelab`` starts."""

from __future__ import annotations

from vaelab.cli.main import run

if __name__ == "__main__":
    run()
