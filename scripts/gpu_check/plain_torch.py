# SPDX-License-Identifier: Apache-2.0
"""The same steps in plain PyTorch: supervised, and L2R by a literal second backward pass.

Networks, views, labels and draws are those of `scripts.gpu_check.steps`, so that both gradients can
be compared. Left out: BatchNorm's moving statistics.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import torch
from torch.nn import functional

from ieg_core.experiment.config import Config
from ieg_core.experiment.networks import parse
from ieg_core.models.normalization import EPSILON
from scripts.gpu_check.figures import compare, time_call
from scripts.gpu_check.sizes import Sizes
from scripts.gpu_check.steps import Prepared, configuration, gradient, prepare

Parameters = Mapping[str, torch.Tensor]
WEIGHT_OFFSET = 1e-5


def to_torch(array: np.ndarray) -> np.ndarray:
    """Reorders a parameter: kernels [h, w, in, out] → [out, in, h, w], [in, out] → [out, in]."""
    if array.ndim == 4:
        array = array.transpose(3, 2, 0, 1)
    return np.ascontiguousarray(array.T if array.ndim == 2 else array)


def logits_of(params: Parameters, images: torch.Tensor, network: str) -> torch.Tensor:
    """Computes the logits [B, C] of images [B, ch, H, W], with the batch's BatchNorm moments."""

    def convolution(x: torch.Tensor, name: str, stride: int = 1) -> torch.Tensor:
        kernel = params[f"{name}/kernel"]
        side = kernel.shape[-1]
        if side == 1 or stride == 1:
            return functional.conv2d(x, kernel, stride=stride, padding=side // 2)
        # "Same" padding with a stride adds zeros at the bottom and the right alone.
        return functional.conv2d(functional.pad(x, (0, 1, 0, 1)), kernel, stride=stride)

    def normalize_relu(x: torch.Tensor, name: str) -> torch.Tensor:
        scale, offset = (params[f"{name}_norm/{each}"] for each in ("gamma", "beta"))
        x = functional.batch_norm(x, None, None, scale, offset, training=True, eps=EPSILON)
        return functional.relu(x)

    layout = parse(network)
    is_bottleneck = layout.family == "bottleneck"
    x = convolution(images, "stem")
    if is_bottleneck:
        x = normalize_relu(x, "stem")
    for stage in (1, 2, 3):
        for block in range(1, layout.blocks_per_stage + 1):
            name = f"stage{stage}_block{block}"
            stride = 2 if block == 1 and stage > 1 else 1
            is_first = is_bottleneck and stage == block == 1
            y = x if is_first else normalize_relu(x, f"{name}_1")
            if f"{name}_projection/kernel" in params:
                x = convolution(x if is_bottleneck else y, f"{name}_projection", stride)
            y = convolution(y, f"{name}_conv1", stride)
            y = convolution(normalize_relu(y, f"{name}_2"), f"{name}_conv2")
            if is_bottleneck:
                y = convolution(normalize_relu(y, f"{name}_3"), f"{name}_conv3")
            x = x + y
    kernel, bias = params["logits/kernel"], params["logits/bias"]
    features = normalize_relu(x, "final").to(kernel.dtype).mean((2, 3))
    # Not `@`, which autocast would compute in bfloat16.
    return (features[:, None, :] * kernel).sum(-1) + bias


def view(
    images: torch.Tensor, ids: torch.Tensor, draws: Mapping[str, torch.Tensor], pad: int
) -> torch.Tensor:
    """Pads, crops and mirrors images [N, H, W, ch], as the weak view does; [B, ch, H, W].

    Args:
      images: uint8 [N, H, W, ch].
      ids: int64 [B], the chosen images.
      draws: flip bool [B]; offset_x and offset_y int64 [B], pixels from 0 to 2·pad.
      pad: Zero pixels on each side.

    Returns:
      float32 in [-1, 1].
    """
    picked = functional.pad(images[ids], (0, 0, pad, pad, pad, pad))
    side = images.shape[1]
    pixel = torch.arange(side, device=images.device)
    columns = torch.where(draws["flip"][:, None], side - 1 - pixel, pixel)
    columns = columns + draws["offset_x"][:, None]
    rows = pixel + draws["offset_y"][:, None]
    batch = torch.arange(len(ids), device=images.device)[:, None, None]
    cropped = picked[batch, rows[:, :, None], columns[:, None, :]]
    return (cropped.float() / 127.5 - 1.0).permute(0, 3, 1, 2)


class PlainSteps:
    """A training in plain PyTorch, with momentum SGD and an average of the parameters."""

    def __init__(
        self,
        prepared: Prepared,
        config: Config,
        device: str,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Copies a prepared training to the device, with parameters of a dtype."""
        state, data, draws, scalars = prepared.arguments

        def place(array: np.ndarray) -> torch.Tensor:
            tensor = torch.from_numpy(np.ascontiguousarray(array)).to(device)
            integers = tensor.dtype == torch.int32
            return tensor.long() if integers else tensor

        self.config, self.dtype = config, dtype
        self.params = {
            path: place(to_torch(value)).to(dtype).requires_grad_()
            for path, value in zip(prepared.paths, state["params"], strict=True)
        }
        for tensor in self.params.values():
            if tensor.ndim == 4:
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
        self.momentum = [torch.zeros_like(each) for each in self.params.values()]
        self.ema = [each.detach().clone() for each in self.params.values()]
        self.data = {name: place(np.asarray(value)) for name, value in data.items()}
        self.draws = {name: place(np.asarray(value)) for name, value in draws.items()}
        self.scalars = scalars
        self.logits = logits_of
        self.autocast = torch.autocast(device, torch.bfloat16, config.precision == "bfloat16")

    def batch(self, index: int, ids: str, labels: str, prefix: str) -> tuple[Any, Any]:
        """Returns the images and one-hot labels of a step.

        Args:
          index: The step.
          ids: Name of the draw that chooses images.
          labels: Name of the labels in the data.
          prefix: What the names of the view's draws begin with, such as "view_".
        """
        drawn = {
            name.removeprefix(prefix): values[index]
            for name, values in self.draws.items()
            if name.startswith(prefix)
        }
        chosen = self.draws[ids][index]
        images = view(self.data["images"], chosen, drawn, self.config.augmentation.pad)
        return images.to(self.dtype), self.data[labels][chosen]

    def losses(self, params: Parameters, images: Any, labels: Any) -> torch.Tensor:
        """Returns the cross-entropy of each example."""
        with self.autocast:
            logits = self.logits(params, images, self.config.network)
        return functional.cross_entropy(logits, labels, reduction="none")

    def decay(self) -> list[torch.Tensor]:
        """Returns ∇R(θ): wd·θ of the kernels, zeros elsewhere."""
        rate = self.config.optimizer.weight_decay
        return [
            (rate if path.endswith("kernel") else 0.0) * each.detach()
            for path, each in self.params.items()
        ]

    def slopes(self, index: int) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Returns the gradient without R, and the loss."""
        images, labels = self.batch(index, "ids", "labels", "view_")
        weights = images.new_full([len(labels)], 1.0 / len(labels))
        if self.config.method == "l2r":
            weights = self.example_weights(index, images, labels)
        loss = (weights * self.losses(self.params, images, labels)).sum()
        return list(torch.autograd.grad(loss, list(self.params.values()))), loss.detach()

    def example_weights(self, index: int, images: Any, labels: Any) -> torch.Tensor:
        """Differentiates the probe loss after one step twice, as in L2R's Algorithm 1."""
        rate = self.config.method_settings.lookahead_lr
        weights = images.new_zeros(len(labels)).requires_grad_()
        loss = (weights * self.losses(self.params, images, labels)).sum()
        slopes = torch.autograd.grad(loss, list(self.params.values()), create_graph=True)
        ahead = {
            path: each.detach() - rate * (slope + decay)
            for (path, each), slope, decay in zip(
                self.params.items(), slopes, self.decay(), strict=True
            )
        }
        probe = self.batch(index, "probe_ids", "probe_labels", "probe_view_")
        value = self.losses(ahead, *probe).mean()
        value = value + 0.5 * self.config.optimizer.weight_decay * sum(
            each.square().sum() for path, each in ahead.items() if path.endswith("kernel")
        )
        helpful = (-torch.autograd.grad(value, weights)[0]).clamp(min=0.0)
        return helpful / (helpful.sum() + WEIGHT_OFFSET)

    def step(self, index: int) -> torch.Tensor:
        """Makes one step; returns the loss."""
        slopes, loss = self.slopes(index)
        scalars = {name: float(values[index]) for name, values in self.scalars.items()}
        params = [each.data for each in self.params.values()]
        gradients = torch._foreach_add(slopes, self.decay())
        torch._foreach_mul_(self.momentum, self.config.optimizer.momentum)
        torch._foreach_add_(self.momentum, gradients)
        torch._foreach_add_(params, self.momentum, alpha=-scalars["learning_rate"])
        torch._foreach_lerp_(self.ema, params, 1.0 - scalars["ema_decay"])
        return loss


def check_torch(network: str, method: str, sizes: Sizes, device: str) -> dict[str, Any]:
    """Compares PyTorch's gradient with ours and times its steps: eager TF32, compiled bfloat16.

    L2R is timed eagerly alone: `torch.compile` does not support a second backward pass.

    Args:
      network: The network's name.
      method: "supervised" or "l2r".
      sizes: The sizes.
      device: "cuda" or "cpu".

    Returns:
      "distance" of our gradient in float32 from PyTorch's in float64, its "limit", and "variants":
      the times of each.
    """
    config = configuration(network, method, "float32", sizes.checked_batch_size)
    small = prepare(config, sizes.image_side, 1)
    with jax.default_matmul_precision("highest"):
        expected, _ = gradient(jax.jit(small.step).lower(*small.first()), small.first())
    # In float32, PyTorch's own gradient on a CPU is 2e-3 from that in float64; ours 5e-7.
    plain = PlainSteps(small, config, device, torch.float64)
    plain.step(0)
    order = [to_torch(each) for each in expected]
    momentum = [each.cpu().numpy() for each in plain.momentum]
    outcome = {
        "network": network,
        "method": method,
        **compare(order, momentum, "float32"),
        "variants": {},
    }
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    variants = {"eager TF32": "float32"}
    if method == "supervised":
        variants["compiled bfloat16"] = "bfloat16"
    for variant, precision in variants.items():
        config = configuration(network, method, precision, sizes.batch_size)
        plain = PlainSteps(prepare(config, sizes.image_side, sizes.steps), config, device)
        if variant.startswith("compiled"):
            plain.logits = torch.compile(logits_of, backend=sizes.torch_compiler)
        outcome["variants"][variant] = time_call(functools.partial(_run, plain, device), sizes)
    return outcome


def _run(plain: PlainSteps, device: str, steps: int) -> None:
    for index in range(steps):
        plain.step(index)
    if device == "cuda":
        torch.cuda.synchronize()
