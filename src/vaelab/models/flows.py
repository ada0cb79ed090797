"""Normalising flows, which zuko (optional) implements."""

from __future__ import annotations

import importlib

from torch import nn

from vaelab.errors import ConfigError

# Command line spelling → class in `zuko.flows`; `realnvp` and `nice` are the same affine coupling.
FLOWS = {
    "nsf": "NSF",
    "maf": "MAF",
    "nice": "NICE",
    "realnvp": "RealNVP",
    "sospf": "SOSPF",
    "naf": "NAF",
    "bpf": "BPF",
}


def build_flow(name: str, what: str, *arguments: int, **options: int) -> nn.Module:
    """Return the flow ``name`` of `FLOWS`: a module that gives a distribution.

    Importing zuko turns the argument checks of all `torch.distributions` off by default.

    Arguments:
        name: a key of `FLOWS`.
        what: what needs it, for the error.
        *arguments: of the class in zuko.
        **options: of it, too.

    Raises:
        ConfigError: zuko is not installed.
    """
    try:
        flows = importlib.import_module("zuko.flows")
    except ImportError:
        raise ConfigError(
            f"{what}: flows need zuko. Install it with: pip install vaelab[flows]"
        ) from None
    flow: nn.Module = getattr(flows, FLOWS[name])(*arguments, **options)
    return flow
