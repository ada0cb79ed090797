"""Measures of edits on images of two pixels: editors, latents, classifiers with known answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.data.attributes import measure
from vaelab.data.images import ImageSet, Splits
from vaelab.errors import ConfigError, DataError
from vaelab.evaluation import probes
from vaelab.evaluation.attributes import (
    References,
    attribute_figures,
    editable,
    is_measure,
    recognized,
    with_sides,
)
from vaelab.evaluation.informed import Labels, Probing
from vaelab.explore.directions import all_attributes
from vaelab.models.classifier import Classifier
from vaelab.models.conditioning import Conditioning, Told, cut_at
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


REFERENCES = References("left", (reader(0),), (reader(1),))


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
    monkeypatch.setattr("vaelab.evaluation.attributes.latent_figures", lambda *_: {})
    splits = pixels_of(400)
    figures = attribute_figures(model(), splits, REFERENCES, handle)
    assert figures.keys() == {"switch:left", "kept:left", "drift:left"}
    assert figures["switch:left"].value == switch
    assert figures["kept:left"].value == kept
    if moved is not None:
        # two images by chance differ in neither pixel, one or both, a quarter each
        apart = (0 + 0.6 + 1.2 + 0.6 * 5**0.5) / 4
        assert figures["drift:left"].value == pytest.approx(moved / apart, rel=0.1)
    assert figures["switch:left"].n == 400
    assert (
        f"classifier of the attribute: {switch:.1%} by pixel 0." in figures["switch:left"].protocol
    )
    assert f"classifier of the class: {kept:.1%} by pixel 1." in figures["kept:left"].protocol


def test_images_of_which_the_attribute_is_unknown_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vaelab.evaluation.attributes.latent_figures", lambda *_: {})
    some = pixels_of(400, unknown=100)
    sides = with_sides(some, "left")
    assert len(sides.test) == 300
    assert sides.test.labels is not None
    torch.testing.assert_close(sides.test.labels, (torch.arange(100, 400) // 2) % 2)
    assert sides.test.class_names == ("below", "above")
    figures = attribute_figures(model(), some, REFERENCES, Sets(0), limit=250)
    assert figures["switch:left"].value == 1
    assert figures["kept:left"].value == 1  # classes stay with their images
    assert figures["switch:left"].n == 250
    nobody = replace(some, test=pixels_of(8, unknown=8).test)
    with pytest.raises(DataError, match="left: is known of 0 test images"):
        attribute_figures(model(), nobody, REFERENCES, Sets(0))
    nameless = References("left", REFERENCES.sides)
    assert attribute_figures(model(), some, nameless, Sets(0)).keys() == {"switch:left"}


def read(found: dict[str, object]) -> dict[str, float]:
    return {name.removesuffix(":left"): round(f.value, 2) for name, f in found.items()}  # type: ignore[attr-defined]


def test_a_latent_that_holds_the_label_shows_it() -> None:
    """In z = (left, class) the first tells all of the attribute, and the second nothing."""
    found = read(dict(attribute_figures(model(), pixels_of(), REFERENCES, Sets(0))))
    assert found["probe"] == found["probe_linear"] == found["probe_alone"] == 1
    assert found["gap"] == pytest.approx(1, abs=0.02)
    assert not {"probe_w", "probe_others", "probe_inferred"} & found.keys()

    def blind(x: Tensor, context: Tensor | None) -> Tensor:
        return flat(x, context)[:, 1:].expand(-1, 2)  # the class, twice

    found = read(dict(attribute_figures(model(blind), pixels_of(), REFERENCES, Sets(0))))
    assert found["probe"] == pytest.approx(0.5, abs=0.02)
    assert found["probe_linear"] == found["probe_alone"] == pytest.approx(0.5, abs=0.02)
    assert found["gap"] == pytest.approx(0, abs=0.02)


def test_a_class_that_decides_the_attribute_is_no_reason_to_measure_nothing() -> None:
    """As of a toy set whose class is the attribute: the latent alone is probed, and it is said."""
    whole = pixels_of().train
    assert whole.attributes is not None
    images = replace(whole, labels=whole.attributes[:, 0].long())
    splits = Splits("pixels", images, images, images)

    found = attribute_figures(model(), splits, REFERENCES, Sets(0))
    assert found["probe:left"].value == 1
    assert "The class decides the attribute" in found["probe:left"].protocol
    assert read(dict(found))["gap"] > 0.9


def test_a_label_that_only_crossed_codes_tell_is_found_by_the_mlp_alone() -> None:
    def crossed(x: Tensor, context: Tensor | None) -> Tensor:
        z = flat(x, context)
        turn = torch.arange(len(x)) % 3 - 1.0  # images of one kind do not fall on one point
        side = torch.where(turn >= 0, 1.0, -1.0) * (1 + 0.1 * turn.abs())
        return torch.stack([side, side * z[:, 0]], 1)

    found = read(dict(attribute_figures(model(crossed), pixels_of(), REFERENCES, Sets())))
    assert found["probe_linear"] < 0.8
    assert found["probe_alone"] == 1


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
    found = read(dict(attribute_figures(csvae, pixels_of(), REFERENCES)))
    assert found["switch"] == float(holds)
    assert found["probe_w"] == pytest.approx(1 if holds else 0.5, abs=0.02)
    assert found["probe"] == pytest.approx(0.5 if holds else 1, abs=0.02)
    assert "probe_inferred" not in found


def test_latents_are_probed_with_and_without_given_labels() -> None:
    """An encoder that copies what it is given shows it; of images alone it knows nothing."""
    conditioning = Conditioning(Told.by(pixels_of().train), ("left",), cut=True)

    def write(x: Tensor, context: Tensor | None) -> Tensor:
        assert context is not None
        return torch.stack([context[:, 0], flat(x, context)[:, 1]], 1)

    teller = model(write, conditioning=conditioning, told=("encoder", "decoder"))
    found = attribute_figures(teller, pixels_of(), REFERENCES)
    assert found["probe:left"].value == 1
    assert found["probe_inferred:left"].value == pytest.approx(0.5, abs=0.02)
    assert "was given the labels" in found["probe:left"].protocol
    assert "was given no labels" in found["probe_inferred:left"].protocol


def test_what_only_the_class_and_the_latent_say_together_is_found() -> None:
    """z is the attribute in one class and its opposite in the other: z alone says nothing."""

    def opposed(x: Tensor, context: Tensor | None) -> Tensor:
        z = flat(x, context)
        return (z[:, :1] * z[:, 1:]).expand(-1, 2)

    found = attribute_figures(model(opposed), pixels_of(), REFERENCES, Sets())
    assert found["probe:left"].value == 1
    assert found["probe_alone:left"].value == pytest.approx(0.5, abs=0.02)
    assert next(iter(found)) == "probe:left"  # what must hold comes first
    protocol = found["probe:left"].protocol
    assert "posterior mean and the class" in protocol
    assert "half of them of every class on either side: chance is 0.5" in protocol
    assert (
        "MLP 1.0000, boosted trees of each class 1.0000 (the best on the test images counts)"
        in protocol
    )


def test_what_only_another_attribute_and_the_latent_say_together_is_found() -> None:
    """As with the class, but z turns with another attribute that the decoder is conditioned on."""
    splits = pixels_of()
    right = ((torch.arange(800) // 4) % 2)[:, None].float()
    assert splits.train.attributes is not None
    both = replace(
        splits.train,
        attributes=torch.cat([splits.train.attributes, right], 1),
        attribute_names=("left", "other"),
        binary=(True, True),
    )
    splits = Splits("two", both, both, both)
    conditioning = Conditioning(Told.by(both), ("label", "left", "other"), cut=True)

    def opposed(x: Tensor, context: Tensor | None) -> Tensor:
        assert context is not None  # two classes, then the sides of both attributes
        return (context[:, 2:3] * context[:, 3:4]).expand(-1, 2)

    turned = model(opposed, conditioning=conditioning, told=("encoder", "decoder"))
    found = attribute_figures(turned, splits, REFERENCES)
    assert found["probe_others:left"].value == 1
    assert found["probe:left"].value == pytest.approx(0.5, abs=0.02)
    assert "the class and the sides of the other attributes" in found["probe_others:left"].protocol


def test_a_latent_without_the_label_is_at_chance_within_its_interval() -> None:
    """z is noise whose size is the class's: nothing of the attribute, whatever a probe gets."""
    draws = torch.Generator().manual_seed(0)
    classes, on = torch.arange(6_000) % 3, torch.arange(6_000) // 3 % 2 == 1
    latents = torch.randn(6_000, 3, generator=draws) * (1.0 + classes[:, None])
    none = torch.zeros(6_000, 0)
    labels = Labels(on, classes, none)
    rows = torch.randperm(6_000, generator=draws)
    known, truth = rows[:3_000], rows[3_000:]
    probing = Probing(latents[known], latents[truth], labels.at(known), labels.at(truth), 3, 0)
    figure = probing.accuracy(slice(0, 3))
    assert figure is not None
    assert figure.ends is not None
    assert figure.ends[0] is not None
    assert figure.ends[0] < 0.5 < figure.value + 0.03
    turned = latents.abs() * torch.where(on, 1.0, -1.0)[:, None] * (classes - 1.0)[:, None]
    seen = replace(probing, train=turned[known], test=turned[truth]).accuracy(slice(0, 3))
    assert seen is not None
    assert seen.value == pytest.approx(5 / 6, abs=0.03)  # all of two classes, nothing of the third


def test_a_measure_is_known_from_what_it_gives_on_the_images() -> None:
    """Bars of 2 to 6 pixels: their area is what vaelab measures, another `area` is not."""
    images = torch.zeros(40, 1, 12, 12, dtype=torch.uint8)
    for row in range(40):
        images[row, :, 2:10, 3 : 5 + row % 5] = 255
    own = torch.arange(40.0)[:, None]
    for values, known in ((measure(images, ["area"]), True), (own, False)):
        assert is_measure(ImageSet(images, None, values, (), ("area",)), "area") is known
    assert not is_measure(ImageSet(images, None, own, (), ("smile",)), "smile")


def test_a_measured_attribute_is_measured_on_the_edit() -> None:
    """Brightness cut at 16: an editor that asks for light gives 32; one that makes black, nothing.

    Thickness of a black image is NaN, which is on no side of a cut.
    """
    classes = torch.arange(200) // 2 % 2
    images = torch.where(torch.arange(200) % 2 == 0, 10, 200)[:, None, None, None]
    images = images.expand(-1, 1, 4, 4).to(torch.uint8).contiguous()
    whole = ImageSet(images, classes, measure(images, ["area"]), ("a", "b"), ("area",))
    splits = Splits("squares", whole, whole, whole)

    def decode(z: Tensor, context: Tensor | None) -> Tensor:
        return ((z[:, :1] + 1) / 2).clamp(0, 1).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)

    encoder = Conditional(Net(lambda x, _: x.flatten(1)[:, :2] * 2 - 1), Near(), 3)
    decoder = Conditional(Net(decode), build_likelihood("gaussian", (1, 4, 4)), 1)
    squares = Vae(encoder, decoder, NormalPrior(2), (1, 4, 4), 2).eval()
    references = References("area", (), (), cut_at(whole, "area"))
    assert references.measured
    for handle, share in ((Sets(0), 1.0), (Sets(), 0.0)):
        figure = attribute_figures(squares, splits, references, handle)["switch:area"]
        assert figure.value == share
        assert "Measured on the edited image: sum of the intensities" in figure.protocol
    dark = attribute_figures(squares, splits, replace(references, attribute="area"), Dims())
    assert dark["switch:area"].value == 0.5  # black is below the cut: right for the bright half
    whole = replace(whole, attribute_names=("thickness",))
    thick = replace(references, attribute="thickness")
    splits = Splits("squares", whole, whole, whole)
    dark = attribute_figures(squares, splits, thick, Dims())
    assert dark["switch:thickness"].value == 0


class Dims:
    """Makes everything black."""

    def move(self, codes: Tensor, to: Tensor, strength: float = 1.0) -> Tensor:
        return torch.full_like(codes, -1.0)


def test_classifiers_that_disagree_widen_the_interval() -> None:
    """One sees the left pixel, one the class, one its opposite: all switches, half, and half."""
    turned = reader(1)
    head = turned.classifier.head
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        head.weight.mul_(-1)
        head.bias.mul_(-1)
    several = replace(REFERENCES, sides=(reader(0), reader(1), turned))
    figure = attribute_figures(model(), pixels_of(400), several, Sets(0))["switch:left"]
    assert figure.value == pytest.approx(2 / 3)
    assert figure.freedom == 2
    assert figure.standard_error == pytest.approx(1 / 6, rel=0.1)  # of 1, ½, ½: s/√3
    assert "100.0% by pixel 0; 50.0% by pixel 1; 50.0% by pixel 1." in figure.protocol
    assert "Their spread is in the interval" in figure.protocol


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
