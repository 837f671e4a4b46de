"""ResNet-18 for small pictures, for machines with an accelerator."""

from __future__ import annotations

from typing import Any

from torch import Tensor, channels_last, nn

from al_lightning.cli.problems import Classifier

WIDTHS = (64, 128, 256, 512)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut: the basic block of He et al., 2016 (https://arxiv.org/abs/1512.03385)."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut = (
            nn.Identity()
            if stride == 1 and before == width
            else nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps ``(n, width, h / stride, w / stride)`` of maps ``(n, before, h, w)``."""
        found: Tensor = (self.body(x) + self.shortcut(x)).relu()
        return found


class ResNet18(Classifier):
    """ResNet-18 for 28x28 grey pictures: no stride and no pooling at its start; 11.2M parameters."""

    def __init__(self, classes: int = 10, **settings: Any) -> None:
        super().__init__(in_features=WIDTHS[-1], classes=classes, hidden=(), **settings)
        blocks = [
            Block(before, width, stride)
            for i, width in enumerate(WIDTHS)
            for before, stride in ((WIDTHS[max(0, i - 1)], 1 if i == 0 else 2), (width, 1))
        ]
        self.trunk = nn.Sequential(
            nn.Conv2d(1, WIDTHS[0], 3, 1, 1, bias=False),
            nn.BatchNorm2d(WIDTHS[0]),
            nn.ReLU(),
            *blocks,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        ).to(memory_format=channels_last)  # type: ignore[call-overload]

    def embed(self, x: Tensor) -> Tensor:
        """The input of the last layer, ``(n, 512)``, of uint8 pictures ``(n, 1, 28, 28)``."""
        return super().embed(((x.float() / 255 - 0.286) / 0.353).contiguous(memory_format=channels_last))
