"""Labels and attributes of other data are those of the model by name, never by place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from vaelab.api import train
from vaelab.data.batches import fetch
from vaelab.data.images import ImageSet, Splits
from vaelab.data.names import matched
from vaelab.errors import DataError
from vaelab.evaluation.bounds import bound_figures
from vaelab.evaluation.evaluate import evaluate
from vaelab.evaluation.samplers import find_sampler
from vaelab.models.vae import Vae

CLASSES, ATTRIBUTES = ("ant", "bee", "cat"), ("low", "tall")

QUICK: dict[str, Any] = {
    "latent_dim": 1, "encoder": {"kind": "mlp", "hidden": [16], "activation": "tanh"},
    "epochs": 40, "batch_size": 32, "lr": 0.01, "likelihood": "gaussian", "device": "cpu",
    "precision": "fp32", "dropout": 0.0,
}  # fmt: skip


def thirds(n: int = 180) -> ImageSet:
    """Images of 6 × 6: the class lights two columns, attributes the first rows and the last."""
    generator = torch.Generator().manual_seed(0)
    kind, row = torch.arange(n) % 3, torch.arange(n)
    low, tall = ((row // 3) % 2).float(), ((row // 6) % 2).float()
    x = torch.full((n, 1, 6, 6), 0.1)
    for k in range(3):
        x[kind == k, :, :, 2 * k : 2 * k + 2] += 0.4
    x[:, :, 4:] += 0.4 * low[:, None, None, None]
    x[:, :, :2] += 0.4 * tall[:, None, None, None]
    x += 0.03 * torch.randn(x.shape, generator=generator)
    pixels = (x.clamp(0, 1) * 255).round().to(torch.uint8)
    return ImageSet(pixels, kind, torch.stack([low, tall], 1), CLASSES, ATTRIBUTES)


def parts() -> Splits:
    whole = thirds()
    rows = torch.arange(180)
    train, validation, test = (
        whole.subset(some) for some in (rows[:120], rows[120:150], rows[150:])
    )
    return Splits("thirds", train, validation, test)


@pytest.fixture(scope="module")
def model() -> Vae:
    return train("cvae", parts(), **QUICK)


def otherwise(images: ImageSet) -> ImageSet:
    """The same images and labels, classes and columns in another order."""
    assert images.labels is not None
    assert images.attributes is not None
    names = ("cat", "ant", "bee")
    labels = torch.tensor([names.index(CLASSES[k]) for k in images.labels.tolist()])
    return replace(
        images,
        labels=labels,
        class_names=names,
        attributes=images.attributes.flip(1),
        attribute_names=("tall", "low"),
    )


def elbo(model: Vae, images: ImageSet) -> float:
    return evaluate(model, images, samples=2, bound_images=2).figures["elbo"].value


def test_the_order_of_classes_and_columns_moves_no_figure(model: Vae) -> None:
    test = parts().test
    known, other = (
        evaluate(model, images, samples=5, bound_images=5) for images in (test, otherwise(test))
    )
    assert {k: f.value for k, f in known.figures.items()} == {
        k: f.value for k, f in other.figures.items()
    }
    assert known.figures["label_read"].value == other.figures["label_read"].value
    by_place = replace(otherwise(test), class_names=CLASSES, attribute_names=ATTRIBUTES)
    assert elbo(model, by_place) < elbo(model, test) - 30  # what it would be by place


def test_a_class_without_images_moves_no_figure(model: Vae) -> None:
    test = parts().test
    assert test.labels is not None
    rows = (test.labels > 0).nonzero().squeeze(1)
    some = test.subset(rows)
    fewer = replace(some, labels=test.labels[rows] - 1, class_names=("bee", "cat"))
    assert elbo(model, fewer) == elbo(model, some)


def test_every_way_from_images_to_the_model_is_by_name(model: Vae) -> None:
    test = parts().test
    other = otherwise(test)
    rows = torch.arange(len(test))
    known, found = (model.context(fetch(images, rows, "cpu")) for images in (test, other))
    assert torch.equal(known, found)  # type: ignore[arg-type]
    bounds = [bound_figures(model, images, draws=(1, 5), limit=9) for images in (test, other)]
    assert bounds[0]["iwae_5"].value == bounds[1]["iwae_5"].value
    for number, name in enumerate(other.class_names):
        sampler = find_sampler("pool", model, other, label=number)
        context = sampler.draw(4)[1]
        assert context[:, CLASSES.index(name)].tolist() == [1, 1, 1, 1]


def test_what_other_images_lack_is_unobserved_and_said(model: Vae) -> None:
    test = parts().test
    assert test.attributes is not None
    one = replace(test, attributes=test.attributes[:, 1:], attribute_names=("tall",))
    unknown = test.attributes.clone()
    unknown[:, 0] = torch.nan
    expected = elbo(model, replace(test, attributes=unknown))
    result = evaluate(model, one, samples=2, bound_images=2)
    assert result.figures["elbo"].value == expected
    assert "attribute low is unobserved" in result.notes[0]
    bare = replace(test, labels=None, attributes=None, class_names=(), attribute_names=())
    result = evaluate(model, bare, samples=2, bound_images=2)
    assert [note for note in result.notes if "unobserved" in note] == [
        "These images have no labels: the class is unobserved.",
        "These images have not all that the model knows: attributes low, tall are unobserved.",
    ]
    blank = replace(
        test, labels=torch.full((len(test),), -1), attributes=torch.full_like(unknown, torch.nan)
    )
    assert result.figures["elbo"].value == elbo(model, blank)


def test_what_the_model_does_not_know_is_named(model: Vae) -> None:
    test = parts().test
    with pytest.raises(DataError, match="class 'dog' is none that this model knows: ant, bee, cat"):
        evaluate(model, replace(test, class_names=("ant", "dog", "cat")))
    with pytest.raises(DataError, match=r"attribute 'size' .* knows: low, tall"):
        evaluate(model, replace(test, attribute_names=("low", "size")))
    with pytest.raises(DataError, match="class '0' is none that this model knows"):
        evaluate(model, replace(test, class_names=()))  # numbers alone are names like others
    with pytest.raises(DataError, match="class 'dog'"):  # behind the doors too
        model.context(
            fetch(replace(test, class_names=("ant", "dog", "cat")), torch.arange(9), "cpu")
        )
    absent = replace(test, class_names=(*CLASSES, "dog"))  # a name without an image
    assert elbo(model, absent) == elbo(model, test)


def test_a_model_without_labels_takes_any(model: Vae) -> None:
    plain = train(
        "vae", parts(), **{k: v for k, v in QUICK.items() if k != "dropout"} | {"epochs": 1}
    )
    test = parts().test
    other = replace(test, class_names=("x", "y", "z"), attribute_names=("u", "v"))
    assert plain.matched(other) == (other, ())
    assert elbo(plain, other) == elbo(plain, test)


def test_units_that_differ_are_said() -> None:
    test = replace(parts().test, units=("px", ""))
    _, notes = matched(test, CLASSES, ATTRIBUTES, ("", ""))
    assert notes == (
        "Attribute low is in px here, and in a unit that is not known in training: its values may "
        "not compare.",
    )
    assert matched(test, CLASSES, ATTRIBUTES, ("px", "")) == (test, ())
    assert matched(test, CLASSES, ATTRIBUTES) == (test, ())  # of a run that kept none
