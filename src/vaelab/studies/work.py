"""A worker: takes one run of a study after another, trains and measures it.

Any number of workers, on one machine or on several that share the folder, can work on a study:
each run is held by a lock while it is trained, and what one worker did no other does again.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

from vaelab import files
from vaelab.config import DataConfig
from vaelab.data.batches import epoch_order
from vaelab.data.images import Splits
from vaelab.data.load import load_config
from vaelab.data.summary import fingerprint
from vaelab.errors import ConfigError, DataError, RunError, VaelabError
from vaelab.evaluation.attributes import recognized
from vaelab.evaluation.bounds import bound_figures
from vaelab.evaluation.classification import classified
from vaelab.evaluation.evaluate import evaluate, finite
from vaelab.evaluation.features import Features, find_features
from vaelab.evaluation.figures import Figure
from vaelab.evaluation.generate import generation_figures, generation_notes
from vaelab.evaluation.neighbours import neighbour_figures
from vaelab.evaluation.paths import path_figures
from vaelab.evaluation.record import Evaluation, write
from vaelab.evaluation.samplers import find_sampler
from vaelab.explore.directions import all_attributes
from vaelab.models.vae import Vae
from vaelab.studies.arms import Mix
from vaelab.studies.mixture import labelled_part, mixed
from vaelab.studies.plan import Case, MeasureConfig, MeasureName, Plan
from vaelab.studies.study import Job, Study
from vaelab.training.fit import train_config
from vaelab.training.judge import trained_judge
from vaelab.training.progress import Silent
from vaelab.training.run import Run

Say = Callable[[str], None]
_WAIT = 2.0  # seconds


def prepare(study: Study, plan: Plan, say: Say = lambda text: None) -> None:
    """Read the images and train the feature networks that a study needs, before any worker does.

    Says what was assumed on reading the images.

    Raises:
        ConfigError: the leading figure cannot be measured on these images, or an augmentation
            study has images without classes.
        DataError: images that cannot be used.
        RunError: the images are others than those of a run that is done.
    """
    room = _Room(study, plan)
    for spec in dict.fromkeys(map(_spec, plan.cases)):
        splits = room.splits(spec)
        for note in splits.notes:
            say(note)
        _check_same_images(study, plan, spec, splits)
        if plan.augments:
            labelled_part(splits.train, 1.0, 0)  # images without classes fail here, once
        if not _compares(plan.measure):
            continue
        if room.features(spec) is None and plan.lead in COMPARED:
            raise ConfigError(
                f"lead: {plan.lead} compares images in a network that is trained on their classes, "
                f"and {splits.name} has none."
            )


def _check_same_images(study: Study, plan: Plan, spec: str, splits: Splits) -> None:
    for job in study.jobs(plan):
        if _spec(job.case) != spec or not (job.measured and job.run.model_file.exists()):
            continue
        if _origin(job) != fingerprint(splits):
            raise RunError(
                f"{splits.name}: has changed since {job.run} was trained on it. The runs of a "
                "study have to share their images: bring them back, or choose another --out."
            )


def _origin(job: Job) -> str:
    """Return the fingerprint of the images that a run is about."""
    if job.case.mix is None:
        return job.run.trained_on()[1]
    return files.read_text(job.origin_file, "data")


COMPARED = frozenset(
    ("frechet", "kernel", "precision", "recall", "density", "coverage", "sharpness", "holes",
     "path_length", "path_jump")
)  # fmt: skip
"""Figures that need a feature network."""


def _compares(how: MeasureConfig) -> bool:
    """Tell whether images are compared in a feature space."""
    return bool({"generation", "paths"} & set(how.also))


def _spec(case: Case) -> str:
    """Return what decides which images a case is about, as text."""
    return _of(case.config.data)


def _of(data: DataConfig) -> str:
    return data.model_copy(update={"binarize": "none"}).model_dump_json()


def work(study: Study, say: Say = lambda text: None) -> None:
    """Train and measure every run that no other worker has, and return when all are settled.

    A run that fails is noted, and the others go on.

    Raises:
        Interrupted: a signal asked for an end; the run under way is saved.
    """
    plan = study.read_plan()
    room = _Room(study, plan)
    while left := [job for job in study.jobs(plan) if not job.settled]:
        if not any([_take(job, room, say) for job in left]):
            time.sleep(_WAIT)  # others have them all; one that is killed leaves its run


def _take(job: Job, room: _Room, say: Say) -> bool:
    """Settle a run unless another worker has it; returns whether it did."""
    with job.claimed() as mine:
        if not mine:
            return False
        if job.settled:
            return True
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

    def __init__(self, study: Study, plan: Plan) -> None:
        self.study, self.plan = study, plan
        self.splits = cache(self._read)
        self.features = cache(self._features)

    def _read(self, spec: str) -> Splits:
        return load_config(DataConfig.model_validate_json(spec))

    def _features(self, spec: str) -> Features | None:
        splits = self.splits(spec)
        if len(splits.train.class_names) < 2:
            return None
        return find_features(splits, cache=self.study.path)  # one for all machines

    def settle(self, job: Job) -> None:
        """Train a run to its end, and measure it."""
        config = self.plan.config(job.case, job.seed)
        spec = _spec(job.case)
        splits = self.splits(spec)
        if job.case.mix is not None:
            result = self._classify(job, job.case.mix, splits)
            write(job.run, result)
            write(job.run, result, job.measured_file)
            return
        train_config(config, splits, job.run, Silent())
        model = job.run.load_model()
        features = self.features(spec) if _compares(self.plan.measure) else None
        result = measure(model, splits, self.plan.measure, features, self.study.path)
        write(job.run, result)
        write(job.run, result, job.measured_file)

    def _classify(self, job: Job, mix: Mix, splits: Splits) -> Evaluation:
        """Train a classifier on the images of an arm, and measure it on the real test images."""
        mixture = mixed(mix, splits, job.seed, self.study.path, lambda data: self.splits(_of(data)))
        files.write_json(job.origin_file, {"data": fingerprint(splits)})
        _forget_others(job.run, mixture.splits)
        train_config(self.plan.config(job.case, job.seed), mixture.splits, job.run, Silent())
        test = splits.test
        if self.plan.measure.limit is not None:
            test = test.subset(epoch_order(len(test), 0, 0)[: self.plan.measure.limit])
        result, _ = classified(job.run.load_classifier(), test, held_out=splits.held_out)
        labels = Figure(mixture.labels, None, mixture.labels, "images", "Real labels used.")
        figures = {**result.figures, "labels": labels, **mixture.figures}
        return replace(result, figures=figures, notes=(*result.notes, *mixture.notes))


def _forget_others(run: Run, splits: Splits) -> None:
    """Let a run start anew that was interrupted on other images.

    Another machine's arithmetic makes other images of the same generator, by a level here or there.
    """
    path = run.state_file
    if path.exists() and files.load_tensors(path)[1].get("data") != fingerprint(splits):
        run.model_file.unlink(missing_ok=True)
        run.log_file.unlink(missing_ok=True)
        path.unlink()  # last: a model without a state is refused


def measure(
    model: Vae,
    splits: Splits,
    how: MeasureConfig,
    features: Features | None,
    cache: Path | None = None,
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
    prior = find_sampler("prior", model, splits.train)
    measures: dict[MeasureName, Callable[[], dict[str, Figure]]] = {
        "neighbours": lambda: neighbour_figures(model, splits.train, splits.test),
        "bounds": lambda: bound_figures(model, splits.test),
        "attributes": lambda: all_attributes(model, splits, cache),
    }
    if len(splits.train.class_names) > 1:
        measures["recognized"] = lambda: recognized(
            model, trained_judge(splits, cache), splits.test, count=how.generated
        )
    if features is not None and splits.held_out:  # else every sample is farther than 0 from all
        measures["paths"] = lambda: path_figures(model, splits.test, features, prior, splits.train)
        measures["generation"] = lambda: generation_figures(
            splits.test,
            features,
            prior,
            known=splits.train if splits.held_out else None,
            held_out=splits.held_out,
            limit=how.generated,
            sets=how.sets,
        )
    figures, notes = dict(result.figures), list(result.notes)
    for name in how.also:
        if name not in measures:
            notes.append(f"{name}: left out, for it needs classes and images held out.")
            continue
        try:
            found, lost = finite(measures[name]())
        except DataError as error:
            notes.append(f"{name}: left out. {error}")
        else:
            figures |= found
            notes += lost
            if name == "generation" and features is not None and "frechet" in found:
                notes += generation_notes(found, features)
    return replace(result, figures=figures, notes=tuple(notes))
