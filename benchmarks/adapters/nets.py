"""A ResNet-18 (its stem and blocks as published) and ways to adapt its sixteen 3x3 convolutions."""

from __future__ import annotations

import copy
from collections.abc import Callable

from lycoris import LycorisNetwork, create_lycoris
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from tenfac.adapters.build import tucker_adapter


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(into, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Sequential()
        if stride != 1 or into != out:
            self.shortcut = nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet18(nn.Module):
    """Eight blocks of 64 to 512 channels between a 7x7 stem and a linear head."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        widths = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
        widths += [(128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
        self.blocks = nn.Sequential(*(Block(*width) for width in widths))
        self.head = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def adapted_names(net: nn.Module) -> list[str]:
    """The 3x3 convolutions."""
    return [
        name
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
    ]


def head_only(net: nn.Module) -> nn.Module:
    """All frozen but the head, which every method here trains."""
    net = copy.deepcopy(net).requires_grad_(False)
    net.head.requires_grad_(True)
    return net


def full(net: nn.Module) -> nn.Module:
    """Full fine-tuning."""
    return copy.deepcopy(net)


def tenfac(path: str) -> Callable[[nn.Module], nn.Module]:
    """Ours, rank 8."""

    def adapt(net: nn.Module) -> nn.Module:
        net = head_only(net)
        for name in adapted_names(net):
            tucker_adapter(net.get_submodule(name), 8, modes=(0, 1), path=path)
        return net

    return adapt


def peft_lora(net: nn.Module) -> nn.Module:
    """LoRA of peft, rank 8."""
    net = copy.deepcopy(net)
    config = LoraConfig(r=8, lora_alpha=8, target_modules=adapted_names(net))
    net = inject_adapter_in_model(config, net)
    net.head.requires_grad_(True)
    return net


def lycoris(bypass: bool) -> Callable[[nn.Module], nn.Module]:
    """LoCon with a Tucker core of LyCORIS, rank 8."""

    def adapt(net: nn.Module) -> nn.Module:
        net = head_only(net)
        names = adapted_names(net)
        LycorisNetwork.apply_preset({"target_module": [], "target_name": names, "enable_conv": True})
        wrapper = create_lycoris(
            net, 1.0, linear_dim=8, linear_alpha=8, algo="locon", use_tucker=True, bypass_mode=bypass
        )
        wrapper.apply_to()
        net.lycoris = wrapper
        return net

    return adapt


METHODS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "full fine-tuning": full,
    "head only": head_only,
    "tenfac": tenfac("auto"),
    "tenfac, fused": tenfac("fused"),
    "PEFT LoRA": peft_lora,
    "LyCORIS Tucker, bypass": lycoris(True),
    "LyCORIS Tucker": lycoris(False),
}


def step_of(net: nn.Module, x: Tensor, target: Tensor) -> Callable[[], None]:
    """Forward, loss and backward in training mode."""
    parameters = [p for p in net.parameters() if p.requires_grad]

    def step() -> None:
        for p in parameters:
            p.grad = None
        nn.functional.cross_entropy(net(x), target).backward()

    return step


def trainable(net: nn.Module) -> int:
    """Learned numbers."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)
