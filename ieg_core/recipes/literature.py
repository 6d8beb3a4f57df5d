# SPDX-License-Identifier: Apache-2.0
"""What others published on the same data by methods that are not implemented here.

The figures of the implemented methods are with their recipes (`ieg_core.recipes.published`). All of
these are for orientation and none is a gate: networks, lengths, clean labels and the number of
models differ, and so may the definition of the noise and whether the last or the best epoch counts.
`scripts/write_published.py` writes them to docs/published.md, next to ours.
"""

from dataclasses import dataclass

from ieg_core.recipes.family import RECALLED

SSR = "the SSR repository's README"
READING = "a reading note on DSS, CVPR 2026"
PROMIX = "IJCAI 2023; its repository's result tables"
RESCIENCE = "an independent reproduction, ReScience, 2026"
FVM = "FVM, ICML 2025"
FAMUS = "FaMUS, CVPR 2021"
NOT_SAID = "not stated"
BENCHMARK = "cleanlab 2.9 on the out-of-sample probabilities of its label-error benchmark"


@dataclass(frozen=True)
class Peer:
    """A method's row in a table of published figures.

    Attributes:
      method: The method.
      values: A figure for each column of its table; "" where none was found.
      network: The network.
      epochs: The length of the training.
      clean_labels: How many clean labels it uses, in words.
      models: How many networks it trains for its result, in words.
      source: Where the figures were read; RECALLED where they were not.
    """

    method: str
    values: tuple[str, ...]
    network: str = NOT_SAID
    epochs: str = NOT_SAID
    clean_labels: str = "0"
    models: str = "one"
    source: str = SSR

    @property
    def texts(self) -> tuple[str, ...]:
        """The figures for display; recalled ones are marked."""
        mark = " (recalled)" if self.source == RECALLED else ""
        return tuple(value and f"{value}{mark}" for value in self.values)


@dataclass(frozen=True)
class Comparison:
    """A table of published figures.

    Attributes:
      name: Its heading.
      columns: What each figure is about, usually a data set.
      peers: Its rows.
    """

    name: str
    columns: tuple[str, ...]
    peers: tuple[Peer, ...]


def _unsaid(method: str, values: tuple[str, ...], network: str, source: str) -> Peer:
    """Returns a row whose source says nothing of clean labels and models here."""
    return Peer(method, values, network, clean_labels=NOT_SAID, models=NOT_SAID, source=source)


_NOISE = ("uniform 0.2", "uniform 0.5", "uniform 0.8", "uniform 0.9")

CIFAR10 = Comparison(
    "CIFAR-10 with drawn noise, test accuracy in percent",
    (*_NOISE, "asymmetric 0.4"),
    (
        Peer("plain training", ("86.8", "79.4", "62.9", "42.7", "85.0")),
        Peer("DivideMix", ("96.1", "94.6", "93.2", "76.0", "93.4"), models="two"),
        Peer("ELR+", ("95.8", "94.8", "93.3", "78.7", "93.0"), models="two"),
        Peer("SSR+", ("96.7", "96.1", "95.6", "95.2", "95.5")),
        Peer(
            "ProMix",
            ("97.7", "97.4", "95.5", "93.4", "96.6"),
            "ResNet-18",
            "600",
            models="two",
            source=PROMIX,
        ),
    ),
)
TUNED = Comparison(
    "CIFAR-10, tuned plain training, test accuracy in percent",
    ("uniform 0.4",),
    (Peer("plain training", ("88.5 to 88.9",), "WRN-28-10", source="a user of MW-Net"),),
)
CIFAR100 = Comparison(
    "CIFAR-100 with drawn noise, test accuracy in percent",
    ("uniform 0.2", "uniform 0.4", *_NOISE[1:]),
    (
        Peer("plain training", ("62.0", "", "46.7", "19.9", "10.1")),
        Peer("DivideMix", ("77.3", "", "74.6", "60.2", "31.5"), models="two"),
        Peer("ELR+", ("77.6", "", "73.6", "60.8", "33.4"), models="two"),
        Peer("SSR+", ("79.7", "", "77.2", "71.9", "66.6")),
        Peer(
            "ProMix",
            ("82.6", "", "80.1", "69.4", "42.9"),
            "ResNet-18",
            "600",
            models="two",
            source=PROMIX,
        ),
        _unsaid("IDO", ("", "92.4", "", "", ""), "ViT-B/16, pre-trained", "IDO, 2025"),
    ),
)
HUMAN = Comparison(
    "CIFAR with human labels, test accuracy in percent",
    ("CIFAR-10N aggregate", "CIFAR-10N worst", "CIFAR-100N"),
    (
        Peer("plain training", ("91.70", "83.91", "61.19"), "ResNet-34", source=RESCIENCE),
        Peer("ELR+", ("95.32", "91.75", "67.87"), "ResNet-34", models="two", source=RESCIENCE),
        Peer("SOP+", ("96.04", "92.89", "63.88"), "ResNet-34", models=NOT_SAID, source=RESCIENCE),
        Peer("DivideMix", ("95.62", "93.10", "70.91"), "ResNet-34", models="two", source=RESCIENCE),
        Peer("DivideMix", ("", "92.56", "71.13"), models=NOT_SAID, source=READING),
        Peer("UNICON", ("", "94.52", "70.30"), models=NOT_SAID, source=READING),
        Peer("LSL", ("", "94.57", "74.46"), models=NOT_SAID, source=READING),
        Peer("DSS+", ("", "94.74", "74.67"), models=NOT_SAID, source=READING),
        Peer(
            "ProMix",
            ("97.65", "96.34", "73.79"),
            "ResNet-18",
            "600",
            models="two",
            source=PROMIX,
        ),
        _unsaid("IDO", ("", "", "73.6"), "ResNet-50, pre-trained", "IDO, 2025"),
        Peer(
            "logistic regression on frozen features",
            ("", "about 95.7", ""),
            "DINOv2-L, pre-trained",
            "none",
            clean_labels=NOT_SAID,
            source=RECALLED,
        ),
    ),
)
WEB = Comparison(
    "WebVision mini, top-1 accuracy in percent",
    ("WebVision val", "ImageNet val"),
    (
        Peer("plain training, tuned", ("about 75", ""), source=NOT_SAID),
        Peer("DivideMix", ("77.32", "75.20"), models=NOT_SAID, source=READING),
        Peer("UNICON", ("77.60", "75.29"), models=NOT_SAID, source=READING),
        Peer("LSL", ("81.40", "77.00"), models=NOT_SAID, source=READING),
        Peer("DSS+", ("82.40", "78.48"), models=NOT_SAID, source=READING),
        _unsaid("IDO", ("82.9", ""), "ResNet-50, pre-trained", "IDO, 2025"),
        _unsaid("IDO", ("86.0", ""), "ViT-B/16, pre-trained", "IDO, 2025"),
        _unsaid("logit adjustment", ("85.1", ""), "CLIP, pre-trained", "CARE, 2026"),
        _unsaid("CARE", ("85.3", ""), "CLIP, pre-trained", "CARE, 2026"),
    ),
)
TAIL = Comparison(
    "Long-tailed CIFAR-10, test accuracy in percent",
    ("factor 200", "factor 100", "factor 50"),
    (
        Peer(
            "MW-Net",
            ("75.6", "77.7", "80.3"),
            clean_labels="a meta set",
            models=NOT_SAID,
            source="Betty's re-implementation",
        ),
    ),
)


def _cleanlab(values: tuple[str, ...], network: str) -> Peer:
    return Peer("cleanlab", values, f"{network}, pre-trained", "five folds", "0", "five", BENCHMARK)


AUDIT = Comparison(
    "Finding the wrong labels of CIFAR-10, average precision, AUROC",
    ("CIFAR-10N aggregate", "CIFAR-10N worst", "class-dependent, 20 %", "CIFAR-10N random"),
    (
        _cleanlab(("0.875, 0.977", "0.953, 0.967", "0.989, 0.997", ""), "ResNet-18"),
        _cleanlab(("0.977, 0.996", "0.991, 0.993", "0.998, 1.000", ""), "Swin-B"),
        Peer(
            "FVM",
            ("-, 0.961", "-, 0.965", "", "-, 0.966"),
            clean_labels="a clean set",
            models=NOT_SAID,
            source=FVM,
        ),
    ),
)
SUGGESTED = Comparison(
    "Suggesting the right label on CIFAR-10N worst, share of labels",
    ("right label first",),
    (Peer("FVM", ("0.861",), clean_labels="a clean set", models=NOT_SAID, source=FVM),),
)
FOUND = Comparison(
    "Labels of CIFAR-10 called wrong, precision, recall",
    ("CIFAR-10N aggregate", "CIFAR-10N worst", "class-dependent, 20 %"),
    (
        _cleanlab(("0.88, 0.55", "0.93, 0.78", "0.91, 0.98"), "ResNet-18"),
        _cleanlab(("0.98, 0.62", "0.98, 0.87", "0.98, 1.00"), "Swin-B"),
    ),
)
CLIP = Comparison(
    "Finding wrong labels by CLIP's features, AUROC",
    ("5 % wrong", "30 % wrong"),
    tuple(
        Peer(method, values, "CLIP, pre-trained", models=NOT_SAID, source="LabelRank's study")
        for method, values in (
            ("cleanlab", ("0.988", "0.952")),
            ("SimiFeat", ("0.988", "0.968")),
            ("FiftyOne", ("0.980", "0.923")),
        )
    ),
)

COST = Comparison(
    "Time on a GPU",
    ("time",),
    (
        _unsaid("airbench, 94 % on clean CIFAR-10", ("2.6 s in all, A100",), NOT_SAID, "airbench"),
        _unsaid("airbench, 96 % on clean CIFAR-10", ("27 s in all, A100",), NOT_SAID, "airbench"),
        _unsaid("IDO", ("121 s an epoch, A100",), "ResNet-50, pre-trained", "IDO, 2025"),
        _unsaid("L2R", ("839 ms a step",), NOT_SAID, FAMUS),
        _unsaid("L2R, look-ahead of a part of the network", ("244 ms a step",), NOT_SAID, FAMUS),
        _unsaid("MW-Net", ("933 ms a step",), NOT_SAID, FAMUS),
        _unsaid("MW-Net, look-ahead of a part of the network", ("284 ms a step",), NOT_SAID, FAMUS),
    ),
)

COMPARISONS = (CIFAR10, TUNED, CIFAR100, HUMAN, WEB, TAIL, AUDIT, SUGGESTED, FOUND, CLIP, COST)
