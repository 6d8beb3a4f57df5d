# SPDX-License-Identifier: Apache-2.0
"""The registry of methods: their settings, and what planning needs to know without a framework.

Everything about a method that does not need a deep-learning framework is here: its settings beside
its entry in `METHODS`. The entry names the implementation, which `ieg_core.methods.registry` loads
when a training starts.
"""

import dataclasses
import types
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from ieg_core.errors import UserError, require, unknown_name

WEIGHTINGS = ("clip", "shift")
LEFT_OUT_AT_DEFAULT = "left out at default"
"""Metadata key of a setting added later: at its default, configurations are written without it."""


@dataclass(frozen=True)
class MethodSettings:
    """Base of every method's settings: what planning and training ask of any of them."""

    @property
    def dictionary_capacity(self) -> int:
        """Number of examples in the method's dictionary; 0 for a method without one."""
        return 0

    @property
    def soft_label_mixup(self) -> float | None:
        """MixUp's α for a training on the posterior's soft labels; None for other targets."""
        return None

    @property
    def taught_by(self) -> str:
        """The method of the finished run whose posterior a network learns from; "" for none."""
        return ""

    @property
    def first_epoch(self) -> int:
        """The first epoch whose steps are the method's own, and not plain training."""
        return 0

    def trusted_batch_size(self, batch_size: int) -> int:
        """Returns the size of the global trusted batch of a step.

        Args:
          batch_size: B, the size of the global training batch.

        Returns:
          B_p: that of the dictionary batch if there is one, else B.
        """
        return batch_size

    def check_classes(self, num_classes: int) -> None:
        """Raises UserError when these settings do not fit a data set of `num_classes` classes."""

    def fit_to_classes(self, num_classes: int, fixed: Collection[str]) -> Self:
        """Adapts the settings to a number of classes that only the data reveal.

        Args:
          num_classes: C.
          fixed: Names of the settings to leave as they are, because the user set them.

        Returns:
          Settings that fit, apart from the fixed ones.
        """
        del num_classes, fixed
        return self


@dataclass(frozen=True)
class DictionarySettings(MethodSettings):
    """Base of the settings of a method whose trusted batch comes from a dictionary.

    Attributes:
      capacity: Examples in the dictionary, a multiple of the number of classes.
      dictionary_batch_size: Examples drawn from it each step, likewise a multiple.
    """

    capacity: int = 2000
    dictionary_batch_size: int = 200

    def __post_init__(self) -> None:
        for name in _SIZES:
            require(getattr(self, name) > 0, f"method.{name}", getattr(self, name), "above 0")
        require(
            self.dictionary_batch_size <= self.capacity,
            "method.dictionary_batch_size",
            self.dictionary_batch_size,
            f"at most the capacity of {self.capacity}",
        )

    @property
    def dictionary_capacity(self) -> int:
        """Number of examples in the dictionary."""
        return self.capacity

    def trusted_batch_size(self, batch_size: int) -> int:
        """Returns the size of the global dictionary batch, whatever the training batch is."""
        del batch_size
        return self.dictionary_batch_size

    def check_classes(self, num_classes: int) -> None:
        """Raises UserError unless capacity and batch are multiples of the number of classes."""
        for name in _SIZES:
            require(
                getattr(self, name) % num_classes == 0,
                f"method.{name}",
                getattr(self, name),
                f"a multiple of the {num_classes} classes",
            )

    def fit_to_classes(self, num_classes: int, fixed: Collection[str]) -> Self:
        """Rounds capacity and batch down to multiples of C, but to no less than C."""
        sizes: dict[str, Any] = {
            name: max(num_classes, getattr(self, name) // num_classes * num_classes)
            for name in _SIZES
            if name not in fixed
        }
        return dataclasses.replace(self, **sizes)


_SIZES = ("capacity", "dictionary_batch_size")


@dataclass(frozen=True)
class SupervisedSettings(MethodSettings):
    """Plain training, also with MixUp or on the probe set alone: Σ ℓ_i / B.

    Attributes:
      label_smoothing: s of y' = (1 − s)·y + s/C.
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        require(
            0 <= self.label_smoothing < 1,
            "method.label_smoothing",
            self.label_smoothing,
            "in [0, 1)",
        )


@dataclass(frozen=True)
class LogitAdjustmentSettings(SupervisedSettings):
    """Logit adjustment for classes of different sizes (arXiv 2007.07314).

    Attributes:
      label_smoothing: s of y' = (1 − s)·y + s/C.
      tau: τ, the factor on the logarithm of a class's share of the given labels.
    """

    tau: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.tau >= 0, "method.tau", self.tau, "at least 0")


@dataclass(frozen=True)
class L2RSettings(MethodSettings):
    """Learning to reweight (arXiv 1803.09050).

    Attributes:
      lookahead_lr: α, the look-ahead's step.
    """

    lookahead_lr: float = 0.1

    def __post_init__(self) -> None:
        require(self.lookahead_lr > 0, "method.lookahead_lr", self.lookahead_lr, "above 0")


@dataclass(frozen=True)
class IEGSettings(MethodSettings):
    """IEG (arXiv 1910.00701): re-weighting, re-labeling, and the unsupervised losses.

    Attributes:
      pseudo_label_loss_weight: p, upstream's --ce_factor; 0 removes the whole MixUp loss.
      consistency_loss_weight: k, upstream's --consistency_factor; 0 removes the KL loss.
      temperature: T, the temperature that sharpens pseudo-labels.
      initial_label_coefficient: λ⁰, the given label's share in the look-ahead's targets.
      lookahead_lr: α.
      lookahead_momentum: μ.
      centered_pseudo_labels: Whether pseudo-labels come from logits minus their mean over the
        batch, which removes the early collapse (docs/early-collapse.md); not in the paper.
    """

    pseudo_label_loss_weight: float = 5.0
    consistency_loss_weight: float = 20.0
    temperature: float = 0.5
    initial_label_coefficient: float = 0.9
    lookahead_lr: float = 0.1
    lookahead_momentum: float = 0.9
    centered_pseudo_labels: bool = field(default=False, metadata={LEFT_OUT_AT_DEFAULT: True})

    def __post_init__(self) -> None:
        for name in ("pseudo_label_loss_weight", "consistency_loss_weight"):
            require(getattr(self, name) >= 0, f"method.{name}", getattr(self, name), "at least 0")
        require(self.temperature > 0, "method.temperature", self.temperature, "above 0")
        require(
            0 <= self.initial_label_coefficient <= 1,
            "method.initial_label_coefficient",
            self.initial_label_coefficient,
            "in [0, 1]",
        )
        _require_lookahead(self.lookahead_lr, self.lookahead_momentum)


@dataclass(frozen=True)
class FSRSettings(DictionarySettings):
    """FSR (arXiv 2109.03216): a dictionary of trusted examples, dense look-ahead, pseudo-labels.

    Attributes:
      capacity: Examples in the dictionary, a multiple of the number of classes.
      dictionary_batch_size: Examples drawn from it each step, likewise a multiple.
      start_epoch: Before it, all weights are 1/B and there is no pseudo-label loss.
      mixup: Whether to train on mixed images; recipes with noise need it for the margin.
      label_smoothing: s in the dictionary loss, and in the training loss if `mixup` is off.
      weighting: "clip" for noise, "shift" for imbalance.
      pseudo_label_loss_weight: Weight of the pseudo-label term; 0 removes it.
      pseudo_label_temperature: τ.
      moving_logits_decay: γ.
      score_decay: β.
      lookahead_lr: α.
      lookahead_momentum: μ.
      class_weight_decay: Upstream's --moving_weight_gamma: above 0, examples get the moving weight
        of their class; 0 switches it off.
      class_weight_end_epoch: The epoch from which the class weights are fixed; 0 for never.
    """

    start_epoch: int = 20
    mixup: bool = True
    label_smoothing: float = 0.0
    weighting: str = "clip"
    pseudo_label_loss_weight: float = 2.0
    pseudo_label_temperature: float = 1.0
    moving_logits_decay: float = 0.1
    score_decay: float = 0.9
    lookahead_lr: float = 0.1
    lookahead_momentum: float = 0.9
    class_weight_decay: float = 0.0
    class_weight_end_epoch: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("start_epoch", "pseudo_label_loss_weight", "class_weight_end_epoch"):
            require(getattr(self, name) >= 0, f"method.{name}", getattr(self, name), "at least 0")
        for name in ("label_smoothing", "moving_logits_decay", "score_decay", "class_weight_decay"):
            require(
                0 <= getattr(self, name) < 1, f"method.{name}", getattr(self, name), "in [0, 1)"
            )
        if self.weighting not in WEIGHTINGS:
            raise unknown_name("method.weighting", self.weighting, WEIGHTINGS)
        require(
            self.pseudo_label_temperature > 0,
            "method.pseudo_label_temperature",
            self.pseudo_label_temperature,
            "above 0",
        )
        _require_lookahead(self.lookahead_lr, self.lookahead_momentum)

    @property
    def first_epoch(self) -> int:
        """The first epoch with weights and pseudo-labels."""
        return self.start_epoch


@dataclass(frozen=True)
class ForwardSettings(MethodSettings):
    """Loss correction with an estimated transition matrix (arXiv 1609.03683).

    Attributes:
      warmup_fraction: Share of the training, rounded down to whole epochs and at least one, that
        minimizes the plain cross-entropy; T is estimated in the last of these epochs.
      transition_floor: ε of T ← (1 − ε)·T + ε/C, which bounds the corrected loss.
    """

    warmup_fraction: float = 0.35
    transition_floor: float = 0.01

    def __post_init__(self) -> None:
        for name in ("warmup_fraction", "transition_floor"):
            value = getattr(self, name)
            require(0 < value < 1, f"method.{name}", value, "in (0, 1)")


@dataclass(frozen=True)
class RetrainSettings(MethodSettings):
    """A head or a network on the posterior's soft labels, with MixUp.

    Attributes:
      mixup_alpha: α of β ~ Beta(α, α); 0 for no MixUp.
      teacher: For a network: the method whose finished run of the same data set, seed and
        settings, in the same results root, has the posterior that it learns from.
    """

    mixup_alpha: float = 1.0
    teacher: str = ""

    def __post_init__(self) -> None:
        require(self.mixup_alpha >= 0, "method.mixup_alpha", self.mixup_alpha, "at least 0")
        if self.teacher:
            spec = method_spec(self.teacher)
            if spec.needs_teacher or not spec.trains_on_noisy:
                why = "needs a teacher itself" if spec.needs_teacher else "judges no noisy label"
                raise UserError(
                    f"method.teacher is {self.teacher!r}, which {why}: expected another method, "
                    "such as ieg"
                )

    @property
    def soft_label_mixup(self) -> float:
        """MixUp's α: the method learns from the posterior's soft labels."""
        return self.mixup_alpha

    @property
    def taught_by(self) -> str:
        """The method of the finished run."""
        return self.teacher


def _require_lookahead(lookahead_lr: float, lookahead_momentum: float) -> None:
    require(lookahead_lr > 0, "method.lookahead_lr", lookahead_lr, "above 0")
    require(
        0 <= lookahead_momentum < 1, "method.lookahead_momentum", lookahead_momentum, "in [0, 1)"
    )


_SMOOTHING = tuple(f"method.label_smoothing={value:g}" for value in (0.0, 0.1, 0.3))
_IEG_WEIGHTS = tuple(
    f"method.pseudo_label_loss_weight={p} method.consistency_loss_weight={k}"
    for p, k in ((1, 4), (1, 20), (5, 20))
)

TrustedSource = Literal["none", "probe", "dictionary"]


@dataclass(frozen=True)
class MethodSpec:
    """What planning needs to know of a method without importing a deep-learning framework.

    Attributes:
      implementation: "<module>:<name>", the `Method` object and its module in `ieg_core.methods`.
      settings: The class of its settings.
      trusted: Where its trusted batch comes from: "none", the clean "probe" set, or a "dictionary"
        of noisy examples that the method chooses itself.
      relative_cost: Time of a step in supervised steps, as measured (docs/PERFORMANCE.md);
        estimates use it until the machine has measured the method itself.
      summary: A one-line description for `ieg recipes`.
      trains_on_noisy: Whether it trains on the noisy set at all.
      view: "weak" or "strong", the view of a single-view method; "both" for IEG.
      mixes: Number of blocks of B images that it mixes (MixUp), for which partners and
        coefficients are drawn; 0 without MixUp.
      trains_heads: Whether it trains heads on features (`ieg_core.training.head_trial`).
      needs_teacher: Whether a network needs the posterior of a finished run (`taught_by`).
      variants: The values of its own settings that tuning tries at each learning rate, the same
        number for every method; each as overrides "method.name=value", separated by spaces.
    """

    implementation: str
    settings: type[MethodSettings]
    trusted: TrustedSource
    relative_cost: float
    summary: str
    trains_on_noisy: bool = True
    view: str = "weak"
    mixes: int = 0
    trains_heads: bool = False
    needs_teacher: bool = False
    variants: tuple[str, ...] = _SMOOTHING

    @property
    def uses_probe(self) -> bool:
        """Whether the method trains with the clean probe set."""
        return self.trusted == "probe"

    @property
    def uses_dictionary(self) -> bool:
        """Whether the method's trusted batch comes from a dictionary of its own."""
        return self.trusted == "dictionary"


METHODS: Mapping[str, MethodSpec] = types.MappingProxyType(
    {
        "supervised": MethodSpec(
            "supervised:SUPERVISED",
            SupervisedSettings,
            "none",
            1.0,
            "plain training on the noisy labels",
            trains_heads=True,
        ),
        "supervised_strong": MethodSpec(
            "supervised:SUPERVISED",
            SupervisedSettings,
            "none",
            1.1,
            "plain training with the strong view",
            view="strong",
        ),
        "mixup": MethodSpec(
            "supervised:MIXUP",
            SupervisedSettings,
            "none",
            1.0,
            "plain training with MixUp",
            mixes=1,
        ),
        "probe_only": MethodSpec(
            "supervised:PROBE_ONLY",
            SupervisedSettings,
            "probe",
            1.1,
            "plain training on the clean probe set alone, strong view",
            trains_on_noisy=False,
            view="strong",
        ),
        "l2r": MethodSpec(
            "l2r:L2R",
            L2RSettings,
            "probe",
            2.7,
            "learning to reweight examples (Ren et al., ICML 2018)",
            variants=tuple(f"method.lookahead_lr={value:g}" for value in (0.03, 0.1, 0.3)),
        ),
        "fsr": MethodSpec(
            "fsr:FSR",
            FSRSettings,
            "dictionary",
            2.0,
            "fast sample re-weighting (ICCV 2021)",
            mixes=1,
            variants=tuple(f"method.pseudo_label_loss_weight={value}" for value in (1, 2, 4)),
        ),
        "forward": MethodSpec(
            "forward:FORWARD",
            ForwardSettings,
            "none",
            1.0,
            "loss correction with an estimated transition matrix (Patrini et al., CVPR 2017)",
            trains_heads=True,
            variants=tuple(f"method.warmup_fraction={value:g}" for value in (0.2, 0.35, 0.5)),
        ),
        "retrain": MethodSpec(
            "retrain:RETRAIN",
            RetrainSettings,
            "none",
            1.0,
            "training on the labels' posterior, with MixUp: a head, or a network after a teacher",
            mixes=1,
            trains_heads=True,
            needs_teacher=True,
            variants=tuple(f"method.mixup_alpha={value:g}" for value in (0.5, 1.0, 2.0)),
        ),
        "ieg_no_lookahead": MethodSpec(
            "ieg:IEG_NO_LOOKAHEAD",
            IEGSettings,
            "probe",
            4.5,
            "IEG without its look-ahead: all weights 1/B, λ = λ⁰",
            view="both",
            mixes=3,
            variants=_IEG_WEIGHTS,
        ),
        "ieg": MethodSpec(
            "ieg:IEG",
            IEGSettings,
            "probe",
            6.8,
            "distilling effective supervision (CVPR 2020)",
            view="both",
            mixes=3,
            variants=_IEG_WEIGHTS,
        ),
        "logit_adjustment": MethodSpec(
            "logit_adjustment:LOGIT_ADJUSTMENT",
            LogitAdjustmentSettings,
            "none",
            1.0,
            "plain training that allows for the classes' sizes (Menon et al., ICLR 2021)",
            variants=tuple(f"method.tau={value:g}" for value in (0.5, 1.0, 2.0)),
        ),
    }
)

DEFAULT_METHODS = ("supervised", "mixup", "probe_only", "l2r", "fsr", "ieg")
"""The methods that a sweep compares by default."""


def method_spec(name: str) -> MethodSpec:
    """Returns the spec of a method; raises UserError with the nearest names when it is unknown."""
    if name not in METHODS:
        raise unknown_name("method", name, METHODS)
    return METHODS[name]
