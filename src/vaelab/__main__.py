"""``vaelab`` and ``python -m vaelab``, which is also what ``torchrun -m vaelab`` starts."""

from __future__ import annotations

from typing import NoReturn

from vaelab.cli.streams import quit_while_importing


def run() -> NoReturn:
    """Run the command line."""
    quit_while_importing()
    from vaelab.cli.main import run as run_command

    run_command()


if __name__ == "__main__":
    run()
