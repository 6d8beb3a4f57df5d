# SPDX-License-Identifier: Apache-2.0
"""The same steps in plain PyTorch: supervised, and L2R and IEG by a literal second backward pass.

Networks, views, labels and draws are those of `scripts.gpu_check.steps`, so that both gradients can
be compared. Left out: BatchNorm's moving statistics, and the strong view of IEG, whose images JAX
makes beforehand.
"""

import dataclasses
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
from ieg_core.training.step import build_batch
from scripts.gpu_check.figures import FirstStep, compare, time_call
from scripts.gpu_check.sizes import Sizes
from scripts.gpu_check.steps import NUM_CLASSES, Prepared, configuration, first_step, prepare

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


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Returns −Σ_c y_c log softmax(z)_c, [B], which can be differentiated by the labels, too."""
    return -(labels * functional.log_softmax(logits, 1)).sum(1)


def normalized(logits: torch.Tensor) -> torch.Tensor:
    """Returns n(z) = z / √(mean(z²) + 1e-8) of a block of logits [B, C]."""
    return logits / (logits.square().mean() + 1e-8).sqrt()


def weights_of(slopes: torch.Tensor) -> torch.Tensor:
    """Returns the example weights [B] from ∂P/∂w: max(0, −g), divided by their sum."""
    helpful = (-slopes).clamp(min=0.0)
    return helpful / (helpful.sum() + WEIGHT_OFFSET)


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
            tensor = torch.from_numpy(np.array(array)).to(device)
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
        self.strong: torch.Tensor | None = None
        if config.method == "ieg":
            self.strong = place(strong_images(prepared, config)).permute(0, 1, 4, 2, 3).to(dtype)

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
        return images.to(self.dtype), functional.one_hot(self.data[labels][chosen], NUM_CLASSES).to(
            self.dtype
        )

    def forward(self, params: Parameters, images: torch.Tensor) -> torch.Tensor:
        """Returns the logits [B, C] of images [B, ch, H, W]."""
        with self.autocast:
            return self.logits(params, images, self.config.network)

    def decay(self) -> list[torch.Tensor]:
        """Returns ∇R(θ): wd·θ of the kernels, zeros elsewhere."""
        rate = self.config.optimizer.weight_decay
        return [
            (rate if path.endswith("kernel") else 0.0) * each.detach()
            for path, each in self.params.items()
        ]

    def slopes(self, index: int) -> tuple[list[torch.Tensor], torch.Tensor, dict[str, Any]]:
        """Returns the gradient without R, the loss, and the method's outputs for each example."""
        images, labels = self.batch(index, "ids", "labels", "view_")
        logits = self.forward(self.params, images)
        examples: dict[str, torch.Tensor] = {}
        if self.config.method == "ieg":
            loss, examples = self.ieg_loss(index, images, labels, logits)
        else:
            weights = images.new_full([len(labels)], 1.0 / len(labels))
            if self.config.method == "l2r":
                zeros = torch.zeros_like(weights).requires_grad_()
                value = (zeros * cross_entropy(logits, labels)).sum()
                weights = weights_of(*self.meta_gradient(index, value, [zeros]))
                examples = {"weight": weights}
            loss = (weights * cross_entropy(logits, labels)).sum()
        return list(torch.autograd.grad(loss, list(self.params.values()))), loss.detach(), examples

    def meta_gradient(
        self, index: int, loss: torch.Tensor, by: list[torch.Tensor], momentum: float = 0.0
    ) -> tuple[torch.Tensor, ...]:
        """Differentiates the probe loss after one step, through that step's own gradient.

        Args:
          index: The step.
          loss: Its loss, without R.
          by: What the loss depends on, besides the parameters.
          momentum: μ of the look-ahead.

        Returns:
          The derivative by each of `by`.
        """
        rate = self.config.method_settings.lookahead_lr
        slopes = torch.autograd.grad(loss, list(self.params.values()), create_graph=True)
        ahead = {
            path: each.detach() - rate * (momentum * buffer + slope + decay)
            for (path, each), buffer, slope, decay in zip(
                self.params.items(), self.momentum, slopes, self.decay(), strict=True
            )
        }
        images, labels = self.batch(index, "probe_ids", "probe_labels", "probe_view_")
        value = cross_entropy(self.forward(ahead, images), labels).mean()
        value = value + 0.5 * self.config.optimizer.weight_decay * sum(
            each.square().sum() for path, each in ahead.items() if path.endswith("kernel")
        )
        return torch.autograd.grad(value, by, retain_graph=True)

    def ieg_loss(
        self, index: int, images: torch.Tensor, labels: torch.Tensor, logits: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Computes IEG's loss without R, as the equations of `ieg_core.methods.ieg` are written.

        Args:
          index: The step.
          images: x, [B, ch, H, W].
          labels: y, [B, C].
          logits: z, [B, C].

        Returns:
          L; and w as "weight" and λ* as "label_coefficient", [B] each.
        """
        settings = self.config.method_settings
        strong = self.strong[index]
        strong_logits = self.forward(self.params, strong)
        guess = sum(normalized(each.detach()).softmax(1) for each in (logits, strong_logits)) / 2
        guess = guess ** (1.0 / settings.temperature)
        guess = guess / guess.sum(1, keepdim=True)

        weights = images.new_full([len(labels)], 1.0 / len(labels)).requires_grad_()
        trust = torch.full_like(weights, settings.initial_label_coefficient).requires_grad_()
        targets = trust[:, None] * labels + (1.0 - trust[:, None]) * guess
        value = (weights * cross_entropy(logits, targets)).sum()
        by_weight, by_trust = self.meta_gradient(
            index, value, [weights, trust], settings.lookahead_momentum
        )
        weights, trust = weights_of(by_weight), (by_trust < 0).to(self.dtype)
        relabeled = trust[:, None] * labels + (1.0 - trust[:, None]) * guess
        loss = 0.5 * cross_entropy(logits, relabeled).mean()
        loss = loss + 0.5 * (weights * cross_entropy(logits, targets.detach())).sum()

        probe, probe_labels = self.batch(index, "probe_ids", "probe_labels", "probe_view_")
        choice = self.draws["mix_probe_choice"][index]
        partners = self.draws["mix_partners"][index].T.flatten()
        share = self.draws["mix_coefficients"][index].T.flatten()[:, None].to(self.dtype)
        pool = torch.cat([probe[choice], images, strong])
        pool_labels = torch.cat([probe_labels[choice], guess, guess])
        pixel_share = share[:, :, None, None]
        mixed = pixel_share * pool + (1.0 - pixel_share) * pool[partners]
        mixed_labels = share * pool_labels + (1.0 - share) * pool_labels[partners]
        blocks = zip(self.forward(self.params, mixed).chunk(3), mixed_labels.chunk(3), strict=True)
        clean, *views = (cross_entropy(normalized(each), target).mean() for each, target in blocks)
        loss = loss + clean + settings.pseudo_label_loss_weight * 0.5 * (views[0] + views[1])

        target = logits.detach().log_softmax(1)
        divergence = (target.exp() * (target - strong_logits.log_softmax(1))).sum(1).mean()
        loss = loss + settings.consistency_loss_weight * divergence
        return loss, {"weight": weights, "label_coefficient": trust}

    def step(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Makes one step; returns its loss and the method's outputs for each example."""
        slopes, loss, examples = self.slopes(index)
        scalars = {name: float(values[index]) for name, values in self.scalars.items()}
        params = [each.data for each in self.params.values()]
        gradients = torch._foreach_add(slopes, self.decay())
        torch._foreach_mul_(self.momentum, self.config.optimizer.momentum)
        torch._foreach_add_(self.momentum, gradients)
        torch._foreach_add_(params, self.momentum, alpha=-scalars["learning_rate"])
        torch._foreach_lerp_(self.ema, params, 1.0 - scalars["ema_decay"])
        return loss, examples


def strong_images(prepared: Prepared, config: Config) -> np.ndarray:
    """Returns the images of the strong view of each step, float32 [steps, B, H, W, ch]."""
    state, data, draws, scalars = prepared.arguments

    @jax.jit
    def one(drawn: Mapping[str, Any]) -> Any:
        batch = build_batch(data, drawn, state["method"], 0.0, config, NUM_CLASSES)
        return batch.strong_images

    steps = len(scalars["epoch"])
    return np.stack(
        [
            np.asarray(one({name: each[step] for name, each in draws.items()}))
            for step in range(steps)
        ]
    )


def check_torch(network: str, method: str, sizes: Sizes, device: str) -> dict[str, Any]:
    """Compares PyTorch's first step with ours and times its steps: eager TF32, compiled bfloat16.

    L2R and IEG are timed eagerly alone: `torch.compile` does not support a second backward pass.

    Args:
      network: The network's name.
      method: "supervised", "l2r" or "ieg".
      sizes: The sizes.
      device: "cuda" or "cpu".

    Returns:
      The distances of our step in float32 from PyTorch's in float64, see `figures.compare`, and
      "variants": of each the times, and the measured "peak_memory" in bytes, 0 on a CPU.
    """
    config = configuration(network, method, "float32", sizes.checked_batch_size)
    small = prepare(config, sizes.image_side, 1)
    with jax.default_matmul_precision("highest"):
        ours = first_step(jax.jit(small.step).lower(*small.first()), small)
    # In float32, PyTorch's own gradient on a CPU is 2e-3 from that in float64; ours 5e-7.
    outcome = {
        "network": network,
        "method": method,
        **compare(_in_torchs_order(ours), plain_step(small, config, device), "float32"),
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
        is_gpu = device == "cuda"
        if is_gpu:
            torch.cuda.reset_peak_memory_stats()
        timed = time_call(functools.partial(_run, plain, device), sizes)
        peak = torch.cuda.max_memory_allocated() if is_gpu else 0
        outcome["variants"][variant] = {**timed, "peak_memory": peak}
    return outcome


def plain_step(prepared: Prepared, config: Config, device: str) -> FirstStep:
    """Makes the first step in float64."""
    plain = PlainSteps(prepared, config, device, torch.float64)
    loss, examples = plain.step(0)
    return FirstStep(
        {
            path: each.cpu().numpy()
            for path, each in zip(prepared.paths, plain.momentum, strict=True)
        },
        float(loss),
        {name: each.cpu().numpy() for name, each in examples.items()},
    )


def _in_torchs_order(step: FirstStep) -> FirstStep:
    gradients = {path: to_torch(each) for path, each in step.gradients.items()}
    return dataclasses.replace(step, gradients=gradients)


def _run(plain: PlainSteps, device: str, steps: int) -> None:
    for index in range(steps):
        plain.step(index)
    if device == "cuda":
        torch.cuda.synchronize()
