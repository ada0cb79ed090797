"""The one training loop, for one or many players.

A pass over the images is cut into batches whose order is a function of (seed, epoch); the noise of
a step is a function of (seed, step). So a run that was killed goes on from its last checkpoint as
if nothing had happened, bit for bit on the same machine.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vaelab import files
from vaelab.config import RunConfig, StartConfig, TrainingConfig, parse_config
from vaelab.data.batches import Batch, Batches, resident, shard
from vaelab.data.images import ImageSet, Splits, labelled, spread, with_few_labels, with_labels
from vaelab.data.summary import fingerprint, pixels_of
from vaelab.errors import ConfigError, RunError, TrainingError, counted
from vaelab.models.classifier import Classifier
from vaelab.models.conditioning import Told
from vaelab.models.model import Model, evaluating
from vaelab.models.vae import Vae
from vaelab.recipes import Setup, build, find_recipe
from vaelab.training.allocator import keep_freed_memory
from vaelab.training.augment import checked, offer, settled, variation_of, varied
from vaelab.training.backend import Backend
from vaelab.training.calibration import FEWEST, SCALED, fit_scale, fitted_temperature
from vaelab.training.checkpoint import (
    LOOKS,
    TAKEN,
    Average,
    Position,
    check_like,
    pack_optimizer,
    prefixed,
    read_position,
    restore,
    under,
    unpack_optimizer,
)
from vaelab.training.diagnoses import collapse
from vaelab.training.divergence import change, is_worse, look
from vaelab.training.finding import Measured
from vaelab.training.interrupt import Interrupt, Interrupted
from vaelab.training.judge import GUIDES, feature_network, trained_judge
from vaelab.training.meter import Meter
from vaelab.training.progress import Progress
from vaelab.training.run import Run, check_same
from vaelab.training.start import before_notes, match_names, seen_before, take_weights
from vaelab.training.step import VALIDATION, Part, Update, mix_seed, with_target
from vaelab.training.validation import Validation, validate

WHOLE_SET = "batch-gd"


def total_steps(training: TrainingConfig, images: int) -> int:
    """Return the steps of a whole training."""
    per_epoch = 1 if training.optimizer == WHOLE_SET else -(-images // training.batch_size)
    return training.epochs * per_epoch


class Trainer:
    """One run under way.

    Arguments:
        config: resolved configuration.
        splits: the images.
        progress: told what happens.
        run: folder to write to; None trains in memory only.
        network: whose features images are compared in, where the configuration says `IN_MEMORY`.
    """

    def __init__(
        self,
        config: RunConfig,
        splits: Splits,
        progress: Progress,
        run: Run | None = None,
        network: nn.Module | None = None,
    ) -> None:
        self.config, self.run, self.progress = config, run, progress
        self.backend = Backend(config.training, str(run) if run else None)
        self.data = fingerprint(splits)
        self.left_out, self.before = "", None
        if config.start is not None:
            self.before = seen_before(config.start)
            before, splits = splits.notes, match_names(config.start, splits)
            new = [note for note in splits.notes if note not in before]
            self.left_out = " ".join([*new, *before_notes(config.start, self.before, splits)])
        seen = splits.train
        if config.training.labelled is not None:
            seen = with_few_labels(seen, config.training.labelled, config.training.seed)
        self.held_out = splits.validation
        if find_recipe(config.recipe).classifies:
            seen, self.held_out = self._labelled_alone(seen), with_labels(self.held_out)
        self.calibrates = splits.held_out and len(self.held_out) > 0
        if not len(self.held_out) and len(splits.validation):
            self.held_out = seen
            self.left_out += (
                " No validation image has a label: validation figures are of training images."
            )
        self.images = resident(seen, self.backend.device)
        training = config.training
        if training.batch_size < self.backend.world:
            raise ConfigError(f"training.batch_size: needs {self.backend.world}, one a process.")
        self.steps = total_steps(training, len(seen))
        torch.manual_seed(mix_seed(training.seed))  # before the networks are built
        self.told = Told.by(seen)
        setup = Setup(
            config.model,
            config.data.binarize,
            pixels_of(splits.train),
            self.steps,
            self.told,
            judge=lambda: trained_judge(replace(splits, train=seen), seed=GUIDES).classifier,
            labelled=lambda: labelled(seen),
            images=lambda: self.images,
            augment=lambda images: self.variation(images),
            network=lambda name: feature_network(name, seen.shape, network),
        )
        self.model, self.objective = build(config, setup)
        config = self.config = self._augmented(seen)
        self.variation = variation_of(config.training.augment, seen.shape)
        if len(seen) % training.batch_size == 1 and self._normalizes_batches():
            raise ConfigError(
                f"training.batch_size: {training.batch_size} leaves a last batch of one image, "
                "which batch normalisation cannot use. Choose another size."
            )
        self.model.config = config
        self.model.to(self.backend.device)
        self.objective.to(self.backend.device)
        self.objective.prepare(self.model)  # now: a training in a step would change its noise
        players = self.objective.players(self.model)
        self.updates = {
            name: Update(player, number, training, self.steps, self.backend, self.model)
            for number, (name, player) in enumerate(players.items())
        }
        self.average = Average(self.model, training.ema) if training.ema else None
        self.best: dict[str, Tensor] | None = None
        self.position = Position()
        self.meter = Meter()
        self.begun = self.saved = time.monotonic()
        if training.compile:
            self.objective.check_compiles()
            for network in self.model.networks():
                network.compile()

    def _labelled_alone(self, images: ImageSet) -> ImageSet:
        """Return what a classifier can learn from; says what is left out."""
        known = with_labels(images)
        if images.labels is not None and not len(known):
            raise ConfigError(
                f"data: none of {counted(len(images), 'training image')} has a label, and a "
                "classifier learns from no others. Label some."
            )
        if self.config.training.labelled is None and len(known) < len(images):
            self.left_out += (
                f" {counted(len(known), 'training image')} of {len(images):,} have a label, and a "
                "classifier learns from no others; m2 and m1+m2 do."
            )
        return known

    def _augmented(self, images: ImageSet) -> RunConfig:
        """Return the configuration with data augmentation decided and checked; says what was."""
        training, given = self.config.training, self.objective.given(self.model)
        held_out = self.held_out if self.calibrates else images.subset(torch.arange(0))
        augment, notes = settled(training.augment, images, held_out, given)
        if self.run is None or not self.run.state_file.exists():
            checked(augment, images, held_out, given)
            if isinstance(self.model, Vae):
                notes += offer(augment, images, held_out, given)
        self.left_out = " ".join([self.left_out.strip(), *notes]).strip()
        training = training.model_copy(update={"augment": augment})
        return self.config.model_copy(update={"training": training})

    def _normalizes_batches(self) -> bool:
        """Tell whether a layer needs two images or more: a labeler's or critic's as well."""
        config = self.config.model
        parts = [*self.model.modules(), *self.objective.modules()]
        flat = any(isinstance(part, nn.BatchNorm1d) for part in parts)
        return flat or "batch" in (config.encoder.normalization, config.decoder.normalization)

    def fit(self) -> Model:
        """Train to the end, or to an interrupt; returns the model with the weights to use.

        Raises:
            TrainingError: the loss stayed non-finite, or was so at the end; the last checkpoint is
                kept.
            Interrupted: a signal asked for an end; the state is saved.
        """
        keep_freed_memory()
        if self.position.finished:
            self._check_end()
        elif self.position.step == 0 and not self.position.start:
            self.position.start = self._looks()
            if self.config.start is not None:
                self._take_weights(self.config.start)
        self.progress.start(self.steps, self.position.step, self.config.training.epochs)
        try:
            with Interrupt(self.progress) as interrupt:
                if self.run and self.backend.main and not self.run.state_file.exists():
                    self.run.begin_log()
                    self._mark_log()
                    self._write_state()  # first, so that no kill leaves a model without a state
                if self.left_out:
                    self._say(self.left_out.strip())  # the log has begun
                self.backend.start_trackers()
                self.saved = self.begun = time.monotonic()
                while not self.position.finished and not interrupt.asked:
                    self._epoch(interrupt)
                interrupted = interrupt.asked and not self.position.finished
        finally:
            self.progress.stop()
            self.backend.close()
        if interrupted:
            raise Interrupted(self.position.step)
        self.model.load_state_dict(self.weights())
        if not self.position.finished or (fault := self._diverged()) is None:
            return self.model.eval()
        raise TrainingError(fault)

    def _epoch(self, interrupt: Interrupt) -> None:
        self.model.train()
        self.objective.train()
        position, log_every = self.position, self.config.training.log_every
        for parts in self._groups():
            self._step(parts)
            if self._log_due():
                self._log_step()
            if self.backend.world == 1 or self._log_due():  # processes must agree to stop or save
                interrupt.asked = self.backend.any(interrupt.asked)
                age = time.monotonic() - self.saved
                late = age > self.config.training.checkpoint_seconds
                if interrupt.asked or self.backend.any(late):
                    self.save()
                if interrupt.asked:
                    return
        last = position.epoch + 1 == self.config.training.epochs
        if last or self.meter.steps == position.batch or self.meter.steps * 2 >= log_every:
            self._log_step()  # else the mean of a few batches would stand beside means of many
        position.epoch, position.batch = position.epoch + 1, 0
        self._validate()
        if position.finished:
            self._check_end()
            self._calibrate()
        self.save()

    def _groups(self) -> Iterator[list[Part]]:
        """Yield what each step uses: one part, unless the step takes the whole set."""
        parts = self._parts()
        if self.config.training.optimizer == WHOLE_SET:
            whole = list(parts)
            yield from [whole] if whole else []  # empty behind a checkpoint at the end of the pass
        else:
            yield from ([part] for part in parts)

    def _parts(self) -> Iterator[Part]:
        training, backend, position = self.config.training, self.backend, self.position
        count = len(self.images)
        batches = Batches(
            self.images,
            training.batch_size,
            device=backend.device,
            seed=training.seed,
            epoch=position.epoch,
            start=position.batch,
            rank=backend.rank,
            world=backend.world,
        )
        whole = training.optimizer == WHOLE_SET
        for batch in batches:
            index = position.batch
            total = min(training.batch_size, count - index * training.batch_size)
            position.batch += 1
            start, stop = shard(total, backend.rank, backend.world)
            parts = backend.world if total >= backend.world else 1  # that do not all do the same
            weight = (stop - start) * parts / (count if whole else total)
            part = Part(batch, weight, (start, stop, total))
            yield varied(part, self.variation, training.seed, position.step, index)

    def _step(self, parts: list[Part]) -> None:
        step = self.position.step
        for name, update in self.updates.items():
            for turn in range(update.player.repeats):
                figures = update(parts, step, self.config.data.binarize, turn)
            self.meter.add(f"{name}/" if len(self.updates) > 1 else "", figures)
        if self.average:
            self.average.update(step)
        self.meter.count(sum(part.rows[2] for part in parts))
        self.position.step += 1

    def _log_due(self) -> bool:
        return self.position.step % self.config.training.log_every == 0

    def _log_step(self) -> None:
        if self.meter.steps == 0:
            return
        speed, figures = self.meter.read()
        step, epoch = self.position.step, self.position.epoch
        self.progress.step(step, epoch, speed, figures)
        rate = next(iter(self.updates.values())).lr(step - 1)
        self._log("step", step=step, epoch=epoch, lr=rate, speed=speed, **figures)
        worst = max(int(update.worst) for update in self.updates.values())
        if worst >= self.config.training.nonfinite_limit:
            raise TrainingError(
                self._advice(
                    f"The loss or its gradient was not finite for {counted(worst, 'step')} in a "
                    f"row, up to step {self.position.step}"
                )
            )

    def _check_end(self) -> None:
        """Raise `TrainingError` where no weights are left that have a finite validation loss."""
        if self.position.sound or self.best is not None:
            return
        skipped = max(int(update.skipped) for update in self.updates.values())
        raise TrainingError(
            self._advice(
                f"The validation loss is not finite after step {self.position.step}, the last one; "
                f"{counted(skipped, 'step')} with a loss or gradient that was not finite "
                f"{'was' if skipped == 1 else 'were'} skipped"
            )
        )

    def _take_weights(self, start: StartConfig) -> None:
        """Begin with the weights of another run, which may fit these images worse than none."""
        take_weights(self.model, start)
        if self.average:
            self.average = Average(self.model, self.average.decay)
        self.position.start |= {f"{name}, {TAKEN}": now for name, now in self._looks().items()}

    def _looks(self) -> dict[str, dict[str, float]]:
        """Return figures of some images of both kinds, with the weights of the model as it is."""
        seed, sets = self.config.training.seed, (self.held_out, self.images)
        with self.backend.autocast():
            found = [look(self.model, self.objective, some, self.steps, seed) for some in sets]
        return dict(zip(LOOKS, found, strict=True))

    def _diverged(self) -> str | None:
        """Return what to say of weights to use that are worse than those of the start, if so.

        It is noted in the log before the last checkpoint is sealed again, so that the run says it.
        """
        start = self.position.start
        if not start:
            return None
        now = self._looks()
        adversarial = len(self.updates.keys() - {"labeler"}) > 1
        worse = {
            name: all(
                is_worse(before, figures, adversarial, self.position.step)
                for kind, before in start.items()
                if kind.partition(",")[0] == name
            )
            for name, figures in now.items()
        }
        if not worse["validation"]:
            return None
        what = f"The validation {change(start['validation'], now['validation'])}"
        if not worse["training"]:
            self._say(
                f"{what}, while the training images are not worse off: the model overfits. Train "
                "on more images, for fewer epochs, or stop in time with -s training.patience=5."
            )
            self._seal()
            return None
        kept = f" The weights are kept in {self.run}." if self.run is not None else ""
        fault = f"Training has diverged. {what}. Try a lower learning rate (training.lr is "
        fault += f"{self.config.training.lr:g}) or training.clip=1."
        if all(note["text"] != fault for note in self._notes()):
            self._log("note", step=self.position.step, about="divergence", text=fault)
            self._seal()
        return f"{fault}{kept}"

    def _notes(self) -> list[dict[str, Any]]:
        return self.run.read_log("note") if self.run is not None else []

    def _seal(self) -> None:
        """Write the state again, with the log as long as it is now."""
        if self.run is not None and self.backend.main:
            self._mark_log()
            self._write_state()

    def _advice(self, fault: str) -> str:
        training = self.config.training
        good = self.run is not None and self.run.model_file.exists()
        kept = f" The last good checkpoint is kept in {self.run}." if good else ""
        return (
            f"{fault}. Try a lower learning rate (training.lr is {training.lr:g}), "
            f"training.clip=1, or training.precision=fp32.{kept}"
        )

    def _validate(self) -> None:
        """Look at the held-out images, and decide whether training is over."""
        position, training = self.position, self.config.training
        with self.average.applied() if self.average else nullcontext():
            with self.backend.autocast():
                if self.variation.varies:
                    fit_scale(self.model, self._unvaried(spread(self.images, SCALED)))
                held_out = self._unvaried(self.held_out)
                result = validate(self.model, self.objective, held_out, self.steps)
        loss = result.figures["loss"]
        position.sound = math.isfinite(loss)
        if position.sound and (position.best is None or loss < position.best):
            position.best, position.stale = loss, 0
            if training.patience:
                self.best = {name: t.detach().clone() for name, t in self._latest().items()}
        else:
            position.stale += 1
        self._log(
            "epoch",
            step=position.step,
            epoch=position.epoch,
            seconds=self._seconds(),
            active_units=result.active,
            skipped=sum(int(update.skipped) for update in self.updates.values()),
            **{f"validation/{name}": value for name, value in result.figures.items()},
        )
        self.progress.epoch(position.epoch, result.figures)
        position.finished = self._over()
        if position.finished and position.epoch < training.epochs:
            stale = counted(position.stale, "epoch")
            self._say(f"Stopped early: no better validation loss for {stale}.")
        if position.epoch >= min(training.epochs, 1 + training.epochs // 3):  # past any warm-up
            self._say_collapse(result)

    def _say_collapse(self, result: Validation) -> None:
        """Say in time that the posterior has collapsed, if it has."""
        folder = "" if self.run is None else str(self.run)
        rate, variance = result.figures.get("rate"), result.variance
        measured = Measured(self.config, folder, steps=self.steps, rate=rate, variance=variance)
        if (finding := collapse(measured)) is not None:
            self._say(str(finding), finding.about)

    def _over(self) -> bool:
        training = self.config.training
        stale = training.patience is not None and self.position.stale >= training.patience
        return stale or self.position.epoch >= training.epochs

    @torch.no_grad()
    def _calibrate(self) -> None:
        """Fit the temperature of a classifier, with the weights to use, to the held-out images."""
        model = self.model
        if not isinstance(model, Classifier) or not self.calibrates:
            return
        kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        model.load_state_dict(self.weights())
        with evaluating(model):
            found = [(model(batch.images), batch.labels) for batch in self._unvaried(self.held_out)]
        logits = torch.cat([one for one, _ in found])
        labels = torch.cat([two for _, two in found if two is not None])
        model.load_state_dict(kept)
        model.temperature.fill_(fitted_temperature(logits, labels))
        if len(labels) < FEWEST:
            self._say(
                f"Only {len(labels)} validation images: too few to calibrate probabilities with, "
                f"which takes {FEWEST}. They may claim to be surer than they are."
            )
        if self.best is not None:
            self.best["temperature"] = model.temperature.clone()

    @torch.no_grad()
    def _unvaried(self, images: ImageSet) -> Iterator[Batch]:
        """Yield images as they are, with the same noise every time."""
        training = self.config.training
        with torch.random.fork_rng(enabled=self.backend.device.type != "mps"):
            torch.manual_seed(mix_seed(training.seed, VALIDATION))
            for batch in Batches(
                images,
                training.batch_size,  # memory stays as in training
                device=self.backend.device,
                shuffle=False,
            ):
                yield with_target(batch, self.config.data.binarize)

    def _latest(self) -> dict[str, Tensor]:
        return self.average.state() if self.average else dict(self.model.state_dict())

    def weights(self) -> dict[str, Tensor]:
        """Return the weights to use: the best by validation, else the average, else the last."""
        return self.best if self.best is not None else self._latest()

    def _seconds(self) -> float:
        return self.position.seconds + time.monotonic() - self.begun

    def _say(self, text: str, about: str = "training") -> None:
        """Tell the person, once whatever the numbers in it."""
        key = re.sub(r"[\d.]+", "#", text)
        if key not in self.position.told:
            self.position.told.append(key)
            self._log("note", step=self.position.step, about=about, text=text)
            if self.backend.main:
                self.progress.say(text)

    def _log(self, kind: str, **values: Any) -> None:
        if self.run and self.backend.main:
            self.run.append_log(kind, values)
        self.backend.track(values, self.position.step)

    def save(self) -> None:
        """Write the weights to use, then the state for a resume."""
        now = time.monotonic()
        self.position.seconds += now - self.begun
        self.begun = self.saved = now
        if self.run is None or not self.backend.main:
            return
        self._mark_log()
        told = self.told
        about = {"step": self.position.step, "data": self.data}
        about |= {"classes": list(told.class_names), "attributes": list(told.attribute_names)}
        about |= {"units": list(told.units), "class_counts": list(told.class_counts)}
        if self._good():
            self.run.save_model(self.model, self.weights(), **about)
        self._write_state()

    def _mark_log(self) -> None:
        assert self.run is not None
        position = self.position
        position.log_bytes, position.log_crc = self.run.log_mark(
            position.log_bytes, position.log_crc
        )

    def _good(self) -> bool:
        """Whether the weights to use gave a finite loss when they were last tried."""
        if self.best is not None or self.position.batch == 0:  # as the validation found them
            return self.best is not None or self.position.sound
        return self.position.sound and not any(int(u.streak) for u in self.updates.values())

    def _write_state(self) -> None:
        assert self.run is not None
        config = self.config.model_dump(mode="json")
        meta = {"position": self.position.dump(), "config": config, "data": self.data}
        files.save_tensors(self.run.state_file, self._tensors(), meta)

    def _tensors(self) -> dict[str, Tensor]:
        """Return all tensors of the state, by name."""
        state = {
            **prefixed("model", self.model.state_dict()),
            **prefixed("objective", self.objective.state_dict()),
            **prefixed("meter", self.meter.state()),
        }
        for name, update in self.updates.items():
            state |= prefixed(f"optimizer/{name}", pack_optimizer(update.optimizer, update.names))
            state |= prefixed(f"guard/{name}", update.guard)
        if self.average:
            state |= prefixed("average", self.average.mean)
        if self.best is not None:
            state |= prefixed("best", self.best)
        return state

    def _check_place(self, position: Position, path: Path) -> None:
        """Raise `RunError` for a step that is not where epoch and batch are."""
        training, batch = self.config.training, position.batch
        taken = min(batch, 1) if training.optimizer == WHOLE_SET else batch
        due = position.epoch * (self.steps // training.epochs) + taken
        if position.step != due or batch > -(-len(self.images) // training.batch_size):
            where = f"step {position.step}, epoch {position.epoch}, batch {batch}"
            raise files.damaged(path, f"position: {where} is not a place of this training")

    def restore(self) -> None:
        """Go back to the last checkpoint of the run; without one, stay at the start.

        Raises:
            RunError: the state is damaged or belongs to another configuration.
        """
        assert self.run is not None
        path = self.run.state_file
        if not path.exists():
            if self.run.model_file.exists():
                raise RunError(
                    f"{path}: is missing, so there is a model but nothing to go on from. "
                    "Start another run in another folder."
                )
            return
        tensors, meta = files.load_tensors(path)
        position = read_position(meta, path)
        self._check_place(position, path)
        if not isinstance(meta.get("config"), dict):
            raise files.damaged(path, "it holds no configuration")
        check_same(parse_config(meta["config"], str(path)), self.config, self.run.config_file)
        if meta.get("data") != self.data:
            raise RunError(
                f"{self.run}: the images are not those that it was trained on. Bring these back, "
                "or start another run in another folder."
            )
        restore(self.model.state_dict(), under("model", tensors), path)
        restore(self.objective.state_dict(), under("objective", tensors), path)
        for name, update in self.updates.items():
            packed = under(f"optimizer/{name}", tensors)
            unpack_optimizer(update.optimizer, update.names, packed, path)
            restore(update.guard, under(f"guard/{name}", tensors), path)
        if self.average:
            restore(self.average.mean, under("average", tensors), path)
        self.best = under("best", tensors) or None
        if self.best is not None:
            check_like(self.model.state_dict(), self.best, path)
        self.meter.load(under("meter", tensors))
        if position.sound:  # else a training that diverged says so itself
            files.check_finite(path, under("model", tensors))
        self.position = position
        self.position.finished = self._over()
        self.run.check_log(position.log_bytes, position.log_crc)
        if self.backend.main:
            self.run.cut_log(position.log_bytes)
