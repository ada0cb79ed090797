"""What samples of a run come from, where training did not get as far as to choose it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vaelab.cli.images import splits_of
from vaelab.cli.output import output
from vaelab.errors import VaelabError

if TYPE_CHECKING:
    from vaelab.data.images import Splits
    from vaelab.models.vae import Vae
    from vaelab.training.run import Run


def choose(run: Run, model: Vae, splits: Splits | None = None) -> None:
    """Let a model sample as its run says; where none is chosen yet, one is.

    Arguments:
        run: the run.
        model: its model.
        splits: the run's own images, where they were read.
    """
    from vaelab.api import choose_samples

    if run.sampler_is_known():
        return
    try:
        with output.counter("choosing a sampler"):
            choose_samples(model, splits or splits_of(run, model, None, option=None), run)
        output.say(model.samples_from)
    except (VaelabError, OSError):  # images that are gone, a folder that is only read
        output.say(f"{model.samples_from} Whether a mixture is better could not be measured.")
