# SPDX-License-Identifier: Apache-2.0
"""The name of a data set with its corruption, and the only parser of such names.

<base>                      no synthetic corruption
<base>_uniform_<r>          with probability r the label is redrawn from all C classes
<base>_asymmetric_<r>       each source class flips to its look-alike with probability r
<base>_imbal_<rho>          long tail, rho = smallest class / largest class
<base>_imbal_<rho>_<r>      the same, then uniform noise r
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from ieg_core.classes import BASES
from ieg_core.errors import UserError, unknown_name

GRAMMAR: Final = (
    "<base>, <base>_uniform_<r>, <base>_asymmetric_<r>, <base>_imbal_<rho> or "
    "<base>_imbal_<rho>_<r>, with r in [0, 1] and rho in (0, 1], for example digits_uniform_0.4"
)
NOISES: Final = ("uniform", "asymmetric")
# Above a half, a look-alike flip leaves nothing that tells the two classes apart.
DEFAULT_NOISE_RATES: Final[dict[str, tuple[float, ...]]] = {
    "uniform": (0.2, 0.4, 0.8),
    "asymmetric": (0.1, 0.2, 0.3, 0.4),
}


@dataclass(frozen=True)
class DatasetSpec:
    """A base data set and what is done to it.

    Attributes:
      base: Name of the clean data set.
      noise: "uniform", "asymmetric" or None.
      noise_rate: r in [0, 1], the probability that a label is redrawn (uniform) or that a
        source class's label flips (asymmetric); 0.0 without noise.
      imbalance: rho in (0, 1], smallest class / largest class of the long tail; None if balanced.

    Raises:
      UserError: A field is unknown, out of range, or the combination has no spelling.
    """

    base: str
    noise: str | None = None
    noise_rate: float = 0.0
    imbalance: float | None = None

    def __post_init__(self) -> None:
        if self.base not in BASES:
            raise unknown_name("data set", self.base, BASES)
        if self.noise is None and self.noise_rate != 0:
            raise UserError(f"a noise rate of {self.noise_rate} needs a noise, one of {NOISES}")
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

    def __str__(self) -> str:
        """The canonical name; `parse` reads it back to an equal spec."""
        parts = [self.base]
        if self.imbalance is not None:
            parts += ["imbal", _number(self.imbalance)]
            if self.noise:
                parts.append(_number(self.noise_rate))
        elif self.noise:
            parts += [self.noise, _number(self.noise_rate)]
        return "_".join(parts)

    @property
    def num_classes(self) -> int:
        """The number of classes C."""
        return BASES[self.base].num_classes

    @property
    def true_flip_rate(self) -> float:
        """The expected share of wrong labels.

        Uniform noise redraws from all C classes, the right one included: r·(C-1)/C.
        Asymmetric noise: r times the share of source classes, all classes being equally large.
        """
        if self.noise == "uniform":
            return self.noise_rate * (self.num_classes - 1) / self.num_classes
        lookalikes = BASES[self.base].lookalikes
        if self.noise == "asymmetric" and lookalikes:
            return self.noise_rate * len(lookalikes) / self.num_classes
        return 0.0


def parse(text: str) -> DatasetSpec:
    """Reads a complete data-set name.

    Args:
      text: For example "digits_uniform_0.4".

    Returns:
      The spec; `str` of it is the canonical spelling of `text`.

    Raises:
      UserError: Unknown base, malformed name, or a number out of range.
    """
    base, *corruption = text.split("_")
    if base not in BASES:
        raise unknown_name("data set", base, BASES)
    match corruption:
        case []:
            return DatasetSpec(base)
        case ["uniform" | "asymmetric" as noise, rate]:
            return DatasetSpec(base, noise, _parse_number(text, rate))
        case ["imbal", imbalance]:
            return DatasetSpec(base, imbalance=_parse_number(text, imbalance))
        case ["imbal", imbalance, rate]:
            return DatasetSpec(
                base, "uniform", _parse_number(text, rate), _parse_number(text, imbalance)
            )
    raise UserError(f"malformed data set {text!r}: expected {GRAMMAR}")


def combine(dataset: str, noise_rates: Sequence[float] | None = None) -> list[DatasetSpec]:
    """Lists the specs that a data set and a list of noise rates stand for.

    A name ending in `_uniform` or `_asymmetric` gets each rate appended, `<base>_imbal_<rho>`
    gets each as its uniform noise; every other complete name is taken as it is.

    Args:
      dataset: A complete name, or one that lacks only its noise rate.
      noise_rates: Rates in [0, 1]; None or empty means none was given, and where the name needs
        one the defaults of its noise are used.

    Returns:
      The specs in the order of the rates, without duplicates.

    Raises:
      UserError: Bad name or rate, or rates given for a name that takes none.
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
    """The shortest decimal spelling that reads back to the same float, never an exponent."""
    text = format(Decimal(repr(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
