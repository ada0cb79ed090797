"""A worker: takes one run of a study after another, trains and measures it.

Any number of workers, on one machine or on several that share the folder, can work on a study:
each run is held by a lock while it is trained, and what one worker did no other does again.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import cache

from vaelab.config import DataConfig
from vaelab.data.images import Splits
from vaelab.data.load import load_config
from vaelab.errors import VaelabError
from vaelab.evaluation.bounds import bound_figures
from vaelab.evaluation.evaluate import evaluate
from vaelab.evaluation.features import Features, find_features
from vaelab.evaluation.figures import Figure
from vaelab.evaluation.generate import generation_figures
from vaelab.evaluation.neighbours import neighbour_figure
from vaelab.evaluation.paths import path_figures
from vaelab.evaluation.record import Evaluation, write
from vaelab.evaluation.samplers import find_sampler
from vaelab.models.vae import Vae
from vaelab.studies.plan import Case, MeasureConfig, Plan
from vaelab.studies.study import Job, Study
from vaelab.training.fit import train_config
from vaelab.training.progress import Silent

Say = Callable[[str], None]


def prepare(plan: Plan) -> None:
    """Train the feature networks that the measures of a study need, before any worker needs them.

    Raises:
        DataError: images that cannot be used.
    """
    room = _Room(plan)
    for spec in dict.fromkeys(map(_spec, plan.cases)):
        room.splits(spec)
        if _compares(plan.measure):
            room.features(spec)


def _compares(how: MeasureConfig) -> bool:
    """Tell whether images are compared in a feature space."""
    return bool({"generation", "paths"} & set(how.also))


def _spec(case: Case) -> str:
    """Return what decides which images a case is about, as text."""
    return case.config.data.model_copy(update={"binarize": "none"}).model_dump_json()


def work(study: Study, say: Say = lambda text: None) -> None:
    """Train and measure every run that no other worker has, and return when none is left.

    A run that fails is noted, and the others go on.

    Raises:
        Interrupted: a signal asked for an end; the run under way is saved.
    """
    plan = study.read_plan()
    room = _Room(plan)
    while any([_take(job, room, say) for job in study.jobs(plan) if not job.settled]):
        pass  # once more, for what a worker that was killed has left


def _take(job: Job, room: _Room, say: Say) -> bool:
    """Settle a run unless another worker has it; returns whether it did."""
    with job.claimed() as mine:
        if not mine or job.settled:
            return False
        try:
            room.settle(job)
        except VaelabError as error:
            job.fail(str(error))
            say(f"{job}: {error}")
        except Exception as error:
            job.fail(f"{type(error).__name__}: {error}")
            say(f"{job}: {traceback.format_exc()}")
    return True


class _Room:
    """What a worker keeps between its runs: the plan, the images and the feature network."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.splits = cache(self._read)
        self.features = cache(self._features)

    def _read(self, spec: str) -> Splits:
        return load_config(DataConfig.model_validate_json(spec))

    def _features(self, spec: str) -> Features | None:
        splits = self.splits(spec)
        return find_features(splits) if len(splits.train.class_names) > 1 else None

    def settle(self, job: Job) -> None:
        """Train a run to its end, and measure it."""
        config = self.plan.config(job.case, job.seed)
        spec = _spec(job.case)
        splits = self.splits(spec)
        train_config(config, splits, job.run, Silent())
        model = job.run.load_model()
        features = self.features(spec) if _compares(self.plan.measure) else None
        write(job.run, measure(model, splits, self.plan.measure, features))


def measure(
    model: Vae, splits: Splits, how: MeasureConfig, features: Features | None
) -> Evaluation:
    """Return all that a study measures of a model, on the test images.

    Every run is measured with the same seed: the same images and the same noise, so that
    differences are between models.
    """
    result = evaluate(
        model,
        splits.test,
        samples=how.samples,
        bound_images=how.bound_images,
        limit=how.limit,
        held_out=splits.held_out,
    )
    more: dict[str, Figure] = {}
    if "neighbours" in how.also:
        found = neighbour_figure(model, splits.train, splits.test)
        more |= {} if found is None else {"neighbour_accuracy": found}
    if "bounds" in how.also:
        more |= bound_figures(model, splits.test)
    prior = find_sampler("prior", model, splits.train)
    if "paths" in how.also and features is not None:
        more |= path_figures(model, splits.test, features, prior, splits.train)
    if "generation" in how.also and features is not None:
        more |= generation_figures(
            model,
            splits.test,
            features,
            prior,
            known=splits.train,
            limit=how.generated,
            sets=how.sets,
        )
    return replace(result, figures={**result.figures, **more})
