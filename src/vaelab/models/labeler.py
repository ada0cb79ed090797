"""What a conditional model takes an image's labels to be where nobody says."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from vaelab.models.conditioning import Conditioning
from vaelab.models.global_batch import everywhere


class Labeler(nn.Module):
    """Reads class and attributes from an image: q(y|x), which stands in for unknown labels.

    It is trained beside the model on images whose labels are known, and moves nothing else.

    Arguments:
        network: images ``(B, C, H, W)`` to a logit for each class, then a number an attribute.
        conditioning: what there is to read.
    """

    def __init__(self, network: nn.Module, conditioning: Conditioning) -> None:
        super().__init__()
        self.network = network
        self.classes = len(conditioning.class_names)
        self.attributes = len(conditioning.attribute_names)
        self.cut = conditioning.cut

    def forward(self, images: Tensor) -> Tensor:
        """Return the raw readings of images, ``(B, classes + attributes)``."""
        raw: Tensor = self.network(images)
        return raw.float()

    @torch.no_grad()
    def fill(self, images: Tensor, context: Tensor) -> Tensor:
        """Return contexts ``(B, K)`` with what is unknown in them as it is read from the images."""
        known = self.known(context)
        if not torch.compiler.is_compiling() and everywhere(known):
            return context
        raw, classes = self(images), self.classes
        values = raw[:, classes:]
        values = values.sign() if self.cut else values
        best = nn.functional.one_hot(raw[:, :classes].argmax(1), classes) if classes else raw[:, :0]
        read = torch.cat([best.float(), values, torch.ones_like(values)], 1)
        spread = torch.cat(
            [known[:, :1].expand(-1, classes), known[:, -self.attributes :].repeat(1, 2)]
            if self.attributes
            else [known[:, :1].expand(-1, classes)],
            1,
        )
        return torch.where(spread, context, read)

    def known(self, context: Tensor) -> Tensor:
        """Tell what a context says, ``(B, F)``: of the class, if there are any, and attributes."""
        parts = []
        if self.classes:
            parts.append(context[:, : self.classes].sum(1, keepdim=True) > 0)
        if self.attributes:
            parts.append(context[:, self.classes + self.attributes :] > 0)
        return torch.cat(parts, 1)

    def cost(self, images: Tensor, context: Tensor) -> Tensor:
        """Return what the readings cost, a scalar, over what is known of each image.

        Cross-entropy of the class and of attributes that were cut, squared error of others.
        """
        raw, known = self(images), self.known(context)
        total = raw.new_zeros(len(raw))
        if self.classes:
            truth = context[:, : self.classes]
            total = total - (truth * raw[:, : self.classes].log_softmax(1)).sum(1)
        if self.attributes:
            read = raw[:, self.classes :]
            values = context[:, self.classes : self.classes + self.attributes]
            each = (
                binary_cross_entropy_with_logits(read, (values > 0).float(), reduction="none")
                if self.cut
                else mse_loss(read, values, reduction="none")
            )
            total = total + (each * known[:, -self.attributes :]).sum(1)
        cost: Tensor = total.mean()
        return cost
