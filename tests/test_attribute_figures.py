"""Measures of edits on images of two pixels: editors, codes and judges whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.data.images import ImageSet, Splits
from vaelab.errors import ConfigError, DataError
from vaelab.evaluation import probes
from vaelab.evaluation.attributes import (
    Judges,
    attribute_figures,
    editable,
    recognized,
    with_sides,
)
from vaelab.explore.directions import all_attributes
from vaelab.models.classifier import Classifier
from vaelab.models.conditioning import Conditioning, Told
from vaelab.models.handles import Handle
from vaelab.models.likelihoods import build_likelihood
from vaelab.models.posteriors import DiagonalNormal
from vaelab.models.priors import NormalPrior
from vaelab.models.subspaces import SubspacePrior
from vaelab.models.vae import Conditional, Vae
from vaelab.training.judge import Judge

NAN = float("nan")
SHAPE = (1, 1, 2)
Network = Callable[[Tensor, Tensor | None], Tensor]


def pixels_of(n: int = 800, unknown: int = 0) -> Splits:
    """Images of two pixels, 51 or 204: the left one tells an attribute, the right one the class."""
    label, left = torch.arange(n) % 2, (torch.arange(n) // 2) % 2
    images = (51 + 153 * torch.stack([left, label], 1)).to(torch.uint8).view(n, *SHAPE)
    values = left[:, None].float()
    values[:unknown] = NAN
    whole = ImageSet(images, label, values, ("dark", "bright"), ("left",))
    return Splits("pixels", whole, whole, whole)


class Net(nn.Module):
    """A network that is one function of what it is given, with a parameter to say where it is."""

    def __init__(self, function: Network) -> None:
        super().__init__()
        self.function, self.place = function, nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.function(x, context) + 0 * self.place


class Near(nn.Module):
    """Means to normal distributions with hardly any noise."""

    def forward(self, raw: Tensor) -> Distribution:
        return DiagonalNormal(raw, torch.full_like(raw, 1e-3))


def flat(x: Tensor, context: Tensor | None) -> Tensor:
    """The code that is the image, in units of its contrast: 0.2 is −1, 0.8 is 1."""
    return (x.flatten(1) - 0.5) / 0.3


def shown(z: Tensor, context: Tensor | None) -> Tensor:
    """The image that such a code is of."""
    return (0.3 * z[:, :2] + 0.5).view(-1, *SHAPE)


def model(encode: Network = flat, decode: Network = shown, dims: int = 2, **told: object) -> Vae:
    encoder = Conditional(Net(encode), Near(), 3)
    decoder = Conditional(Net(decode), build_likelihood("gaussian", SHAPE), 1)
    prior = told.pop("prior", None) or NormalPrior(dims)
    return Vae(encoder, decoder, prior, SHAPE, dims, **told).eval()  # type: ignore[arg-type]


def reader(pixel: int) -> Judge:
    """Reads a pixel: class 1 above ½. Its features are both pixels, the left one twice as far."""

    class Body(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) * torch.tensor([2.0, 1.0])

    head = nn.Linear(2, 2)
    slope = torch.zeros(2, 2)
    slope[1, pixel] = 10.0 / (2 - pixel)
    head.weight, head.bias = nn.Parameter(slope), nn.Parameter(torch.tensor([5.0, 0.0]))
    made = Classifier(nn.Sequential(Body(), Still()), head, SHAPE)
    return Judge(f"pixel {pixel}", made.eval())


class Still(nn.Module):
    """Changes nothing; has the parameter that a model needs to know its device."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x + 0 * self.place


JUDGES = Judges("left", side=reader(0), kind=reader(1))


class Sets:
    """Sets pixels of the code to the side that is asked for."""

    def __init__(self, *pixels: int) -> None:
        self.pixels = pixels

    def move(self, codes: Tensor, to: Tensor, strength: float = 1.0) -> Tensor:
        moved = codes.clone()
        for pixel in self.pixels:
            moved[:, pixel] = 2 * to - 1
        return moved


@pytest.fixture(autouse=True)
def short_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "STEPS", 150)
    monkeypatch.setattr(probes, "EPOCHS", 1)
    monkeypatch.setattr(probes, "HIDDEN", 16)
    monkeypatch.setitem(probes.RATES, "mlp", 2e-2)


@pytest.mark.parametrize(
    ("handle", "switch", "kept", "moved"),
    [
        (Sets(0), 1.0, 1.0, 2 * 0.6),  # the left pixel alone: twice as far in the features
        (Sets(), 0.0, 1.0, 0.0),  # nothing
        (Sets(1), 0.0, 0.5, 0.5 * 0.6),  # the class in its place: moved where they differ
        (Sets(0, 1), 1.0, 0.5, None),  # both
    ],
)
def test_editors_get_what_they_are_worth(
    handle: Handle,
    switch: float,
    kept: float,
    moved: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vaelab.evaluation.attributes._told", lambda *_: {})
    splits = pixels_of(400)
    figures = attribute_figures(model(), splits, JUDGES, handle)
    assert figures.keys() == {"switch:left", "kept:left", "drift:left"}
    assert figures["switch:left"].value == switch
    assert figures["kept:left"].value == kept
    if moved is not None:
        # two images by chance differ in neither pixel, one or both, a quarter each
        apart = (0 + 0.6 + 1.2 + 0.6 * 5**0.5) / 4
        assert figures["drift:left"].value == pytest.approx(moved / apart, rel=0.1)
    assert figures["switch:left"].n == 400
    assert "Judge: pixel 0." in figures["switch:left"].protocol
    assert "Judge of the class: pixel 1." in figures["kept:left"].protocol


def test_images_of_which_the_attribute_is_unknown_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vaelab.evaluation.attributes._told", lambda *_: {})
    some = pixels_of(400, unknown=100)
    sides = with_sides(some, "left")
    assert len(sides.test) == 300
    assert sides.test.labels is not None
    torch.testing.assert_close(sides.test.labels, (torch.arange(100, 400) // 2) % 2)
    assert sides.test.class_names == ("below", "above")
    figures = attribute_figures(model(), some, JUDGES, Sets(0), limit=250)
    assert figures["switch:left"].value == 1
    assert figures["kept:left"].value == 1  # classes stay with their images
    assert figures["switch:left"].n == 250
    nobody = replace(some, test=pixels_of(8, unknown=8).test)
    with pytest.raises(DataError, match="left: is known of 0 test images"):
        attribute_figures(model(), nobody, JUDGES, Sets(0))
    nameless = Judges("left", JUDGES.side, None)
    assert attribute_figures(model(), some, nameless, Sets(0)).keys() == {"switch:left"}


def read(found: dict[str, object]) -> dict[str, float]:
    return {name.removesuffix(":left"): round(f.value, 2) for name, f in found.items()}  # type: ignore[attr-defined]


def test_a_code_that_holds_the_label_leaks_it() -> None:
    """In z = (left, class) the first tells all of the attribute, and the second nothing."""
    found = read(dict(attribute_figures(model(), pixels_of(), JUDGES, Sets(0))))
    assert found["leak_linear"] == found["leak_mlp"] == 1
    assert found["gap"] == pytest.approx(1, abs=0.02)
    assert "told" not in found

    def blind(x: Tensor, context: Tensor | None) -> Tensor:
        return flat(x, context)[:, 1:].expand(-1, 2)  # the class, twice

    found = read(dict(attribute_figures(model(blind), pixels_of(), JUDGES, Sets(0))))
    assert found["leak_linear"] == found["leak_mlp"] == pytest.approx(0.5, abs=0.02)
    assert found["gap"] == pytest.approx(0, abs=0.02)


def test_a_label_that_only_crossed_codes_tell_is_found_by_the_mlp_alone() -> None:
    def crossed(x: Tensor, context: Tensor | None) -> Tensor:
        z = flat(x, context)
        turn = torch.arange(len(x)) % 3 - 1.0  # images of one kind do not fall on one point
        side = torch.where(turn >= 0, 1.0, -1.0) * (1 + 0.1 * turn.abs())
        return torch.stack([side, side * z[:, 0]], 1)

    found = read(dict(attribute_figures(model(crossed), pixels_of(), JUDGES, Sets())))
    assert found["leak_linear"] < 0.8
    assert found["leak_mlp"] == 1


@pytest.mark.parametrize("holds", [True, False])
def test_a_subspace_is_to_tell_and_the_rest_not(holds: bool) -> None:
    """z = class and w = attribute; or the other way around, which is as wrong as can be."""
    known = Told.by(pixels_of().train)
    conditioning = Conditioning(known, ("left",), cut=True)
    prior = SubspacePrior(("left",), 1, 1, (-1.0, 1.0), (1.0, 1.0))

    def encode(x: Tensor, context: Tensor | None) -> Tensor:
        z = flat(x, context)
        return z.flip(1) if holds else z

    def decode(z: Tensor, context: Tensor | None) -> Tensor:
        return shown(z.flip(1) if holds else z, context)

    csvae = model(encode, decode, conditioning=conditioning, told=("prior",), prior=prior)
    assert editable(csvae) == ("left",)
    found = read(dict(attribute_figures(csvae, pixels_of(), JUDGES)))
    assert found["switch"] == float(holds)
    assert found["told"] == pytest.approx(1 if holds else 0.5, abs=0.02)
    assert found["leak_mlp"] == pytest.approx(0.5 if holds else 1, abs=0.02)
    assert "leak_mlp_read" not in found


def test_codes_are_probed_with_and_without_being_told() -> None:
    """An encoder that writes down what it is told leaks it; of images alone it knows nothing."""
    conditioning = Conditioning(Told.by(pixels_of().train), ("left",), cut=True)

    def write(x: Tensor, context: Tensor | None) -> Tensor:
        assert context is not None
        return torch.stack([context[:, 0], flat(x, context)[:, 1]], 1)

    teller = model(write, conditioning=conditioning, told=("encoder", "decoder"))
    found = attribute_figures(teller, pixels_of(), JUDGES)
    assert found["leak_mlp:left"].value == 1
    assert found["leak_mlp_read:left"].value == pytest.approx(0.5, abs=0.02)
    assert "was told the labels" in found["leak_mlp:left"].protocol
    assert "was told nothing" in found["leak_mlp_read:left"].protocol


@pytest.mark.parametrize(
    ("paint", "share"),
    [
        (lambda c: c[:, 1], 1.0),  # the class that is asked for
        (lambda c: 1 - c[:, 1], 0.0),  # the other
        (lambda c: torch.ones(len(c)), 0.5),  # always the second
    ],
)
def test_samples_are_recognised_by_what_was_asked(
    paint: Callable[[Tensor], Tensor], share: float
) -> None:
    def decode(z: Tensor, context: Tensor | None) -> Tensor:
        assert context is not None
        value = 0.2 + 0.6 * paint(context.expand(len(z), -1))
        return torch.stack([torch.full_like(value, 0.5), value], 1).view(-1, *SHAPE)

    conditioning = Conditioning(Told.by(pixels_of().train), ("label",))
    made = model(decode=decode, conditioning=conditioning, told=("encoder", "decoder"))
    found = recognized(made, reader(1), count=1_500)
    figure = found["recognized"]
    sure = torch.tensor(3.0).sigmoid().item()  # of pixels of 0.2 and 0.8, 10 (x − ½) = ±3
    assert found["certainty"].value == pytest.approx(sure, abs=1e-5)
    assert figure.value == share
    assert figure.n == 1_500
    assert "Judge: pixel 1." in figure.protocol
    assert set(recognized(model(), reader(1))) == {"certainty"}  # which cannot be asked


def test_images_without_attributes_are_refused() -> None:
    bare = replace(pixels_of().train, attributes=None, attribute_names=(), binary=())
    with pytest.raises(ConfigError, match=r"no attributes\. .*-s data\.attributes"):
        all_attributes(model(), Splits("bare", bare, bare, bare))
