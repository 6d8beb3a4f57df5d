# SPDX-License-Identifier: Apache-2.0
"""Names of data sets with their corruption, and the only parser of such names.

<base>                      no synthetic corruption
<base>_uniform_<r>          with probability r the label is redrawn from all C classes
<base>_asymmetric_<r>       each source class flips to its look-alike with probability r
<base>_imbal_<rho>          long tail, rho = smallest class / largest class
<base>_imbal_<rho>_<r>      the same, then uniform noise r
<base>_human_<set>          human labels, CIFAR-N (cifar100_human has one set)
<base>_labels               labels from a file
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from ieg_core.errors import UserError, unknown_name
from ieg_core.experiment.base_datasets import BASES, HUMAN_SETS

GRAMMAR: Final = (
    "<base>, <base>_uniform_<r>, <base>_asymmetric_<r>, <base>_imbal_<rho>, "
    "<base>_imbal_<rho>_<r>, <base>_human_<set> or <base>_labels, with r in [0, 1] and rho in "
    "(0, 1], for example digits_uniform_0.4"
)
NOISES: Final = ("uniform", "asymmetric")
LABELS: Final = "labels"
# Above one half, look-alike flips make the two classes indistinguishable.
DEFAULT_NOISE_RATES: Final[dict[str, tuple[float, ...]]] = {
    "uniform": (0.2, 0.4, 0.8),
    "asymmetric": (0.1, 0.2, 0.3, 0.4),
}


@dataclass(frozen=True)
class DatasetSpec:
    """A base data set and its corruption.

    Attributes:
      base: Name of the clean data set.
      noise: "uniform", "asymmetric" or None.
      noise_rate: r in [0, 1], the probability that a label is redrawn (uniform) or that a
        source class's label flips (asymmetric); 0.0 without noise, None if labels are `given`.
      imbalance: rho in (0, 1], smallest class / largest class of the long tail; None if balanced.
      given: Where the labels come from if none are drawn: "labels", a file of the user's, or one of
        the base's HUMAN_SETS; None otherwise.

    Raises:
      UserError: When a field is unknown or out of range, or the combination has no name.
    """

    base: str
    noise: str | None = None
    noise_rate: float | None = 0.0
    imbalance: float | None = None
    given: str | None = None

    def __post_init__(self) -> None:
        if self.base not in BASES:
            raise unknown_name("data set", self.base, BASES)
        if self.given is not None:
            self._check_given()
            object.__setattr__(self, "noise_rate", None)
            return
        if self.noise_rate is None:
            raise UserError(f"noise rate None for {self.base!r}: expected a number in [0, 1]")
        if self.noise is None and self.noise_rate != 0:
            raise UserError(
                f"noise rate {self.noise_rate} without a noise: expected one of {', '.join(NOISES)}"
            )
        if self.noise is not None and self.noise not in NOISES:
            raise unknown_name("noise", self.noise, NOISES)
        if self.noise == "asymmetric" and self.imbalance is not None:
            raise UserError(
                f"received asymmetric noise with imbalance on {self.base!r}: a long tail takes "
                f"uniform noise only; expected {GRAMMAR}"
            )
        if self.noise == "asymmetric" and BASES[self.base].lookalikes is None:
            mapped = ", ".join(name for name, base in BASES.items() if base.lookalikes)
            raise UserError(
                f"no asymmetric noise for {self.base!r}: it has no map of look-alike classes; "
                f"use '{self.base}_uniform', or one of {mapped}"
            )
        # + 0.0 turns -0.0 into 0.0, which would otherwise be another spelling of the same spec.
        object.__setattr__(self, "noise_rate", _ratio("noise rate", self.noise_rate) + 0.0)
        if self.imbalance is not None:
            imbalance = _ratio("imbalance", self.imbalance)
            if imbalance == 0:
                raise UserError(
                    "imbalance 0 would leave classes empty: expected smallest class / largest "
                    "class in (0, 1], for example 0.02"
                )
            object.__setattr__(self, "imbalance", imbalance)

    def _check_given(self) -> None:
        if self.noise is not None or self.noise_rate or self.imbalance is not None:
            raise UserError(
                f"{self.base}_{self.given} with noise or imbalance: given labels are used as they "
                f"are; expected {GRAMMAR}"
            )
        known = (*HUMAN_SETS.get(self.base, ()), LABELS)
        if self.given not in known:
            raise unknown_name(
                "data set",
                f"{self.base}_{self.given}",
                [f"{base}_{name}" for base, names in HUMAN_SETS.items() for name in names]
                + [f"{self.base}_{LABELS}"],
            )

    def __str__(self) -> str:
        """The canonical name; `parse` reads it back to an equal spec."""
        parts = [self.base]
        if self.given is not None:
            return f"{self.base}_{self.given}"
        if self.imbalance is not None:
            parts += ["imbal", _number(self.imbalance)]
            if self.noise:
                parts.append(_number(self._drawn_rate))
        elif self.noise:
            parts += [self.noise, _number(self._drawn_rate)]
        return "_".join(parts)

    @property
    def num_classes(self) -> int:
        """The number of classes C; raises UserError if only the data define it, as for `folder`."""
        number = BASES[self.base].num_classes
        if not number:
            raise UserError(
                f"received {self.base!r}, whose classes are known only from its data: expected a "
                "data set with a fixed number of classes"
            )
        return number

    @property
    def clean_labels_known(self) -> bool:
        """Whether the base's own labels count as the true ones.

        Those of the user's own images do if noise is added to them; otherwise they may be wrong.
        """
        return bool(BASES[self.base].class_names) or self.noise is not None

    @property
    def _drawn_rate(self) -> float:
        return self.noise_rate or 0.0

    @property
    def true_flip_rate(self) -> float | None:
        """The expected share of wrong labels, see `expected_flip_rate`."""
        return self.expected_flip_rate(self.num_classes if self.noise else 1)

    def expected_flip_rate(self, num_classes: int) -> float | None:
        """Returns the expected share of wrong labels; None if labels are given, not drawn.

        Uniform noise redraws from all C classes, including the right one: r·(C-1)/C.
        Asymmetric noise: r times the share of source classes, for classes of equal size.
        """
        if self.given is not None:
            return None
        if self.noise == "uniform":
            return self._drawn_rate * (num_classes - 1) / num_classes
        lookalikes = BASES[self.base].lookalikes
        if self.noise == "asymmetric" and lookalikes:
            return self._drawn_rate * len(lookalikes) / num_classes
        return 0.0


def parse(text: str) -> DatasetSpec:
    """Parses a complete data-set name.

    Args:
      text: For example "digits_uniform_0.4".

    Returns:
      The spec; `str` of it is the canonical spelling of `text`.

    Raises:
      UserError: When the base is unknown, the name malformed, or a number out of range.
    """
    base = base_of(text)
    corruption = text.removeprefix(base).split("_")[1:]
    match corruption:
        case []:
            return DatasetSpec(base)
        case ["labels"] | ["human"] | ["human", _]:
            return DatasetSpec(base, given="_".join(corruption))
        case ["uniform" | "asymmetric" as noise, rate]:
            return DatasetSpec(base, noise, _parse_number(text, rate))
        case ["imbal", imbalance]:
            return DatasetSpec(base, imbalance=_parse_number(text, imbalance))
        case ["imbal", imbalance, rate]:
            return DatasetSpec(
                base, "uniform", _parse_number(text, rate), _parse_number(text, imbalance)
            )
        case [number] if base == "webvisionmini" and number.isdigit():
            raise UserError(
                f"malformed data set {text!r}: expected {base!r}, whose probe is all images in "
                f"probe/<class>/; put {number} there for each class"
            )
    raise UserError(f"malformed data set {text!r}: expected {GRAMMAR}")


def base_of(text: str) -> str:
    """Returns the base data set of a name, which itself may contain "_".

    Args:
      text: A complete name, or the beginning of one.

    Raises:
      UserError: When it does not begin with the name of a base data set.
    """
    fitting = [base for base in BASES if f"{text}_".startswith(f"{base}_")]
    if not fitting:
        raise unknown_name("data set", text.partition("_")[0], BASES)
    return max(fitting, key=len)


def combine(dataset: str, noise_rates: Sequence[float] | None = None) -> list[DatasetSpec]:
    """Lists the specs that a data set and a list of noise rates denote.

    A name that ends in `_uniform` or `_asymmetric` gets each rate appended; `<base>_imbal_<rho>`
    gets each as uniform noise; any other complete name is used as it is.

    Args:
      dataset: A complete name, or one without its noise rate.
      noise_rates: Rates in [0, 1]; None or empty for the defaults of the noise, if the name needs
        a rate.

    Returns:
      The specs in the order of the rates, without duplicates.

    Raises:
      UserError: When the name or a rate is invalid, or rates are given for a name without one.
    """
    rates = tuple(noise_rates or ())
    head, _, ending = dataset.rpartition("_")
    if head in BASES and ending in NOISES:
        specs = [DatasetSpec(head, ending, rate) for rate in rates or DEFAULT_NOISE_RATES[ending]]
        return list(dict.fromkeys(specs))
    spec = parse(dataset)
    if not rates:
        return [spec]
    if spec.imbalance is None or spec.noise is not None:
        raise UserError(
            f"data set {dataset!r} is complete and takes no noise rate, received "
            f"{', '.join(map(str, rates))}: leave the rates out, or use '{spec.base}_uniform'"
        )
    specs = [DatasetSpec(spec.base, "uniform", rate, spec.imbalance) for rate in rates]
    return list(dict.fromkeys(specs))


def _ratio(what: str, value: float) -> float:
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise UserError(f"{what} {value} is not a ratio: expected a number in [0, 1]")
    return float(value)


def _parse_number(text: str, number: str) -> float:
    try:
        if number != number.strip():
            raise ValueError(number)
        return float(number)
    except ValueError:
        raise UserError(
            f"malformed data set {text!r}: {number!r} is not a number; expected {GRAMMAR}"
        ) from None


def _number(value: float) -> str:
    """Returns the shortest decimal text that parses to the same float, without an exponent."""
    text = format(Decimal(repr(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
