"""How much information about an attribute is in a latent, and where.

A CSVAE is to keep it in the attribute's subspace w and out of z, *given what the decoder is
conditioned on*: z ⟂ y | c, so that an edit of y alone changes y alone. Fresh probes say how far it
does: their accuracy on balanced images is ½ where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vaelab.data.batches import epoch_order
from vaelab.data.images import ImageSet, Splits
from vaelab.evaluation.figures import Figure, share
from vaelab.evaluation.measure import codes_of
from vaelab.evaluation.probes import Kind, balanced, information_gap, one_hot, probe, right
from vaelab.models.conditioning import cut_at, cut_of
from vaelab.models.vae import Vae

PROBED = 30_000
"""Training images that a probe learns from, at most."""

KINDS: tuple[Kind, ...] = ("mlp", "trees")
NAMES = {"linear": "linear", "mlp": "MLP", "trees": "boosted trees of each class"}


@dataclass(frozen=True)
class Labels:
    """What is known of N images.

    Arguments:
        on: whether the attribute is above its cut, bool ``(N,)``.
        classes: int64 ``(N,)``; None where there are none.
        others: −1 or 1 for the sides of other attributes, 0 where unknown, ``(N, A)``.
    """

    on: Tensor
    classes: Tensor | None
    others: Tensor

    def at(self, rows: Tensor) -> Labels:
        """Return the same of some of the images."""
        classes = None if self.classes is None else self.classes[rows]
        return Labels(self.on[rows], classes, self.others[rows])

    def given(self, count: int, others: bool) -> Tensor:
        """Return what a probe gets beside latents: one-hot class, other sides, ``(N, k)``."""
        parts = [torch.zeros(len(self.on), 0)]
        parts += [] if self.classes is None else [one_hot(self.classes, count)]
        return torch.cat([*parts, self.others] if others else parts, 1)


@dataclass(frozen=True)
class Probing:
    """Training and test latents of one attribute, from which any part can be probed.

    Arguments:
        train, test: latents ``(N, D)``.
        known, truth: labels of both.
        count: of classes.
        seed: of every choice.
        how: whether the encoder was conditioned on the labels, for the protocol.
    """

    train: Tensor
    test: Tensor
    known: Labels
    truth: Labels
    count: int
    seed: int
    how: str = ""

    def accuracy(
        self,
        part: slice,
        kinds: Sequence[Kind] = KINDS,
        *,
        given: bool = True,
        others: bool = False,
    ) -> Figure | None:
        """Return the accuracy of the best of fresh probes of a part of the latent.

        Images are balanced within every class, and within its cells of other attributes where the
        probe gets these: so the class says nothing by itself. The best is the best on test images,
        so that what is claimed to be unknown to a probe is so to all of them.

        Arguments:
            part: of the latent.
            kinds: of probes.
            given: whether they get the class.
            others: whether they get the other attributes as well.

        Returns:
            None where no image is left.
        """
        rows, index = self._rows(self.truth, others, 0), self._rows(self.known, others, PROBED)
        if min(len(rows), len(index)) < 2:
            return None
        known, truth = self.known.at(index), self.truth.at(rows)
        inputs, tested = self.train[index][:, part], self.test[rows][:, part]
        if given:
            inputs = torch.cat([inputs, known.given(self.count, others)], 1)
            tested = torch.cat([tested, truth.given(self.count, others)], 1)
        found = {
            kind: _by_class(kind, inputs, known, tested, truth, self.seed)
            if kind == "trees" and given
            else right(probe(inputs, known.on, kind, self.seed), tested, truth.on)
            for kind in kinds
        }
        return share(max(found.values(), key=lambda hits: float(hits.mean())), self._words(
            {kind: float(hits.mean()) for kind, hits in found.items()}, index, rows, given, others
        ))  # fmt: skip

    def _rows(self, labels: Labels, others: bool, most: int) -> Tensor:
        """Return balanced rows, at most so many if not 0."""
        parts = [labels.others] if others else []
        parts += [] if labels.classes is None else [labels.classes[:, None].float()]
        cells = torch.cat(parts, 1) if parts else None
        rows = balanced(labels.on, cells, self.seed)
        return rows[epoch_order(len(rows), self.seed, 1)[:most]].sort().values if most else rows

    def _words(
        self,
        found: dict[Kind, float],
        index: Tensor,
        rows: Tensor,
        given: bool,
        others: bool,
    ) -> str:
        """Return the protocol."""
        cell = "" if self.known.classes is None else " of every class"
        cell += " and side of the other attributes" if others else ""
        got = [] if self.known.classes is None or not given else ["the class"]
        got += ["the sides of the other attributes"] if others else []
        beside = f" and {' and '.join(got)}" if got else ""
        each = ", ".join(f"{NAMES[kind]} {value:.4f}" for kind, value in found.items())
        best = " (the best on the test images counts)" if len(found) > 1 else ""
        return (
            f"Fresh probes of posterior mean{beside}, trained on {len(index):,} training images, "
            f"tested on {len(rows):,} test images, half of them{cell} on either side: chance is "
            f"0.5. {each}{best}. Seed {self.seed}.{self.how}"
        )


def _by_class(
    kind: Kind, inputs: Tensor, known: Labels, tested: Tensor, truth: Labels, seed: int
) -> Tensor:
    """Return as `right` does, of one probe for each class.

    Trees grow by one split at a time, and see nothing in what only two inputs say together.
    """
    if known.classes is None or truth.classes is None:
        return right(probe(inputs, known.on, kind, seed), tested, truth.on)
    hits = torch.full((len(tested),), 0.5, dtype=torch.double)
    for k in truth.classes.unique():
        mine, here = known.classes == k, truth.classes == k
        if int(mine.sum()) > 1:
            fitted = probe(inputs[mine], known.on[mine], kind, seed)
            hits[here] = right(fitted, tested[here], truth.on[here])
    return hits


def latent_figures(
    model: Vae, splits: Splits, known: Splits, name: str, order: Tensor, seed: int
) -> dict[str, Figure]:
    """Return how much information about an attribute is in each part of the latent.

        probe            probe accuracy of y from (z, class): what must be ½ for edits of y alone
                         where the decoder is conditioned on the class
        probe_others     from (z, class, other attributes of the model): z ⟂ yᵢ | class, y₋ᵢ for
                         every i is z ⟂ y | class, of all attributes together
        probe_inferred   from (z, class) where the encoder is given no labels and infers them
        probe_alone      from z alone by an MLP, ``probe_linear`` by a linear probe: z ⟂ y
        probe_w          from the attribute's subspace w (CSVAE), by an MLP; ``probe_w_inferred``
                         where the encoder infers the labels
        gap              mutual information gap

    The first three are of the best of an MLP and boosted trees of each class. Latents are posterior
    means, given the labels if the encoder was trained so.

    Arguments:
        model: encodes.
        splits: all images; the cuts are of its training images.
        known: those of which the attribute is known, with their classes.
        name: of the attribute.
        order: which of the test images.
        seed: of every choice.
    """
    pool = epoch_order(len(known.train), seed, 1)[: 2 * PROBED].sort().values
    learnt, truth = (
        _labels(model, splits, images, name).at(rows)
        for images, rows in ((known.train, pool), (known.test, order))
    )
    encodes, count = "encoder" in model.told, len(splits.train.class_names)
    decided = learnt.classes is not None and not len(balanced(learnt.on, learnt.classes))
    if decided:  # as of a toy set whose class is the attribute
        learnt, truth = replace(learnt, classes=None), replace(truth, classes=None)
    beside = " The class decides the attribute, so that no probe gets it." if decided else ""

    def probing(train: ImageSet, test: ImageSet, how: str) -> Probing:
        latents = codes_of(model, train, pool), codes_of(model, test, order)
        return Probing(*latents, learnt, truth, count, seed, how + beside)

    own = model.subspaces[name].dims if name in model.subspaces else None
    plain = slice(0, model.plain_dims)
    how = " The encoder was given the labels." if encodes else ""
    first = probing(known.train, known.test, how)
    found = {"probe": first.accuracy(plain)}
    if learnt.others.shape[1]:
        found["probe_others"] = first.accuracy(plain, others=True)
    found["probe_alone"] = first.accuracy(plain, ("mlp",), given=False)
    found["probe_linear"] = first.accuracy(plain, ("linear",), given=False)
    if own is not None:
        found["probe_w"] = first.accuracy(own, ("mlp",), given=False)
    if encodes:
        bare = unlabelled(known.train), unlabelled(known.test)
        second = probing(*bare, " The encoder was given no labels.")
        found["probe_inferred"] = second.accuracy(plain)
        if own is not None:
            found["probe_w_inferred"] = second.accuracy(own, ("mlp",), given=False)
    figures = {key: figure for key, figure in found.items() if figure is not None}
    if figures:
        figures["gap"] = _gap(model, first)
    return figures


def unlabelled(images: ImageSet) -> ImageSet:
    """Return the same images, of which no label is known."""
    return replace(images, labels=None, attributes=None, class_names=(), attribute_names=())


def _labels(model: Vae, splits: Splits, images: ImageSet, name: str) -> Labels:
    conditioning = model.conditioning
    names = () if conditioning is None else conditioning.attribute_names
    sides = {
        each: cut_of(images, each, cut_at(splits.train, each))
        for each in (name, *(n for n in names if n in images.attribute_names and n != name))
    }
    on = sides.pop(name) > 0
    others = torch.stack(list(sides.values()), 1) if sides else torch.zeros(len(on), 0)
    classes = images.labels if len(splits.train.class_names) > 1 else None
    return Labels(on, classes, others.nan_to_num(0.0))


def _gap(model: Vae, probing: Probing) -> Figure:
    rows = balanced(probing.truth.on, probing.truth.classes, probing.seed)
    groups = [space.dims for space in model.subspaces.values()]
    gap = information_gap(probing.test[rows], probing.truth.on[rows], groups)
    how = "Mutual information gap (Chen et al., 2018), a subspace being one unit; 20 bins."
    return Figure(gap, None, len(rows), "of the label's entropy", how)
