# SPDX-License-Identifier: Apache-2.0
"""The fixed facts of each base data set: its classes, and which of them look alike."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

CIFAR10_CLASSES: Final = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

CIFAR100_SUPERCLASSES: Final[dict[str, tuple[str, ...]]] = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}

# The official files number the 100 fine classes in alphabetical order.
CIFAR100_CLASSES: Final = tuple(
    sorted(name for names in CIFAR100_SUPERCLASSES.values() for name in names)
)

FASHION_MNIST_CLASSES: Final = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle_boot",
)


@dataclass(frozen=True)
class Base:
    """One base data set.

    Attributes:
      class_names: The names, by class number; empty if only the data define them.
      image_shape: (height, width, channels) of the uint8 images; zeros if the data and the settings
        define it.
      lookalikes: For asymmetric noise, source class → the class it is mistaken for; None if the
        data set has no such map.
    """

    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    lookalikes: Mapping[int, int] | None

    @property
    def num_classes(self) -> int:
        """The number of classes C."""
        return len(self.class_names)


def _numbered(names: tuple[str, ...], pairs: Mapping[str, str]) -> dict[int, int]:
    return {names.index(source): names.index(target) for source, target in pairs.items()}


def _next_in_superclass() -> dict[str, str]:
    return {
        name: names[(position + 1) % len(names)]
        for names in CIFAR100_SUPERCLASSES.values()
        for position, name in enumerate(names)
    }


BASES: Final[dict[str, Base]] = {
    "digits": Base(
        class_names=tuple("0123456789"),
        image_shape=(8, 8, 1),
        lookalikes={7: 1, 3: 8, 5: 6, 6: 5, 9: 4},
    ),
    "cifar10": Base(
        class_names=CIFAR10_CLASSES,
        image_shape=(32, 32, 3),
        lookalikes=_numbered(
            CIFAR10_CLASSES,
            {
                "truck": "automobile",
                "bird": "airplane",
                "cat": "dog",
                "dog": "cat",
                "deer": "horse",
            },
        ),
    ),
    "cifar100": Base(
        class_names=CIFAR100_CLASSES,
        image_shape=(32, 32, 3),
        lookalikes=_numbered(CIFAR100_CLASSES, _next_in_superclass()),
    ),
    "fashion_mnist": Base(
        class_names=FASHION_MNIST_CLASSES,
        image_shape=(28, 28, 1),
        # The pairs of Zhang and Sabuncu, NeurIPS 2018 (arXiv 1805.07836), section 4.1.
        lookalikes=_numbered(
            FASHION_MNIST_CLASSES,
            {
                "ankle_boot": "sneaker",
                "sneaker": "sandal",
                "pullover": "shirt",
                "coat": "dress",
                "dress": "coat",
            },
        ),
    ),
    "folder": Base(class_names=(), image_shape=(0, 0, 0), lookalikes=None),
    "webvisionmini": Base(class_names=(), image_shape=(0, 0, 0), lookalikes=None),
}

HUMAN_SETS: Final[dict[str, tuple[str, ...]]] = {
    "cifar10": (
        "human_aggregate",
        "human_random1",
        "human_random2",
        "human_random3",
        "human_worst",
    ),
    "cifar100": ("human",),
}
"""The sets of human labels, by base (CIFAR-N, arXiv 2110.12088)."""
