# SPDX-License-Identifier: Apache-2.0
import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from ieg_core.audit import review
from tests.ieg_core.audit.reviews import make_audit, random_audit

HOSTILE = (
    "</script><script>alert(1)</script>", "<!--<script>", '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}", "\u2028'\\", "=HYPERLINK()", "\udc80.png",
)  # fmt: skip


class Page(HTMLParser):
    """Collects what would be loaded, and the text of script and style elements."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.blocks, self.policy, self._open = [], [], "", None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        self.loaded += [value for key, value in attrs if key in ("src", "href")]
        assert not any(key.startswith("on") for key in known)
        assert "style" not in known
        if known.get("http-equiv") == "Content-Security-Policy":
            self.policy = known["content"]
        if tag in ("script", "style"):
            self._open = (tag, known.get("id"))
            self.blocks.append([*self._open, ""])

    def handle_endtag(self, tag):
        if self._open and tag == self._open[0]:
            self._open = None

    def handle_data(self, data):
        if self._open:
            self.blocks[-1][2] += data

    def json(self, name):
        return json.loads(next(text for _, ident, text in self.blocks if ident == name))


def picture(encoded):
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


def test_the_most_suspicious_label_is_first_whatever_its_class():
    audit = random_audit(200, 4)
    content = Page(review.render(audit, top=50)).json("content")
    assert content["names"] == [audit.images.names[place] for place in audit.order[:50]]
    assert content["score"] == sorted(content["score"], reverse=True)
    assert content["score"][-1] >= round(np.sort(audit.score)[-51], 4)
    assert content["judged"] == 200
    assert content["given"] == audit.given[audit.order[:50]].tolist()


def test_a_label_has_its_likeliest_classes_with_their_probability():
    q = np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]])
    content = Page(review.render(make_audit(q, np.array([0, 1])), top=9)).json("content")
    assert content["likely"] == [[2, 1, 0], [0, 1, 2]]
    assert content["probability"] == [[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]]
    assert content["suggested"] == [2, 0]
    assert content["votes"] == []


def test_of_many_classes_only_the_likeliest_ten_are_listed():
    audit = random_audit(5, 40)
    content = Page(review.render(audit, top=5)).json("content")
    assert [len(row) for row in content["likely"]] == [10] * 5
    assert len(content["classes"]) == 40


def test_several_annotators_are_votes():
    labels = np.array([[0, 1, 1], [-1, 0, -1]])
    content = Page(review.render(make_audit(np.eye(2)[[1, 1]], labels), top=2)).json("content")
    assert sorted(content["votes"]) == [[0], [0, 1, 1]]


def test_the_page_loads_nothing_and_its_policy_allows_only_its_own_blocks():
    pixels = np.zeros((3, 8, 8, 3), np.uint8)
    page = Page(text := review.render(random_audit(3, 3, pixels=pixels), top=3))
    assert page.loaded == ["data:,"]
    assert "@import" not in text
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text
    for tag, ident, block in page.blocks:
        source = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
        assert (f"{tag}-src 'sha256-{source}'" in page.policy) == (ident is None)
    assert page.policy.startswith("default-src 'none';")
    assert "unsafe" not in page.policy


def test_names_can_do_no_harm():
    count = len(HOSTILE)
    audit = random_audit(
        count, count, names=HOSTILE, class_names=[f"{name} class" for name in HOSTILE]
    )
    text = review.render(audit, top=count)
    text.encode()
    page = Page(text)
    content = page.json("content")
    assert set(content["names"]) == set(HOSTILE)
    assert content["classes"] == [f"{name} class" for name in HOSTILE]
    assert [ident for _, ident, _ in page.blocks] == [None, "content", "images", None]
    assert text.count("<script") == 3
    assert "onerror" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((300, 150, 3), (80, 160)), ((90, 400, 1), (160, 36)), ((20, 30, 3), (30, 20))],
)
def test_an_image_becomes_a_small_jpeg_of_its_own_proportions(shape, size):
    image = np.broadcast_to(np.linspace(0, 255, shape[1])[None, :, None], shape).astype(np.uint8)
    made = picture(review.thumbnail(image, 100_000))
    assert made.size == size
    assert made.format == "JPEG"
    assert made.mode == ("L" if shape[-1] == 1 else "RGB")
    expected = Image.fromarray(image.squeeze()).resize(size)
    np.testing.assert_allclose(np.asarray(made, float), np.asarray(expected, float), atol=6)


def test_an_image_takes_no_more_room_than_it_has():
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    lengths = [len(review.thumbnail(noise, room)) for room in (60_000, 11_000, 4_000)]
    assert lengths[0] > lengths[1] > lengths[2]
    assert lengths[1] <= 11_000
    assert lengths[2] <= review.CHARACTERS_PER_IMAGE


class Noise:
    """Images that no JPEG makes small."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.some = rng.integers(0, 256, (7, 200, 240, 3), dtype=np.uint8)

    def __getitem__(self, place):
        return self.some[place % 7]


def test_two_thousand_images_stay_below_25_megabytes():
    audit = random_audit(2000, 20, names=[f"{number:04d}{'x' * 60}" for number in range(2000)],
                         pixels=Noise())  # fmt: skip
    text = review.render(audit, top=2000)
    assert len(text.encode()) < 25_000_000
    images = Page(text).json("images")
    assert len(images) == 2000
    assert max(picture(images[-1]).size) >= 96
    assert len(images[-1]) > 8_000  # the room is used, to the last


def test_no_more_images_are_shown_than_have_room(monkeypatch):
    monkeypatch.setattr(review, "IMAGE_CHARACTERS", 10 * review.CHARACTERS_PER_IMAGE)
    text = review.render(random_audit(30, 3, pixels=Noise()), top=20)
    page = Page(text)
    assert len(page.json("content")["names"]) == len(page.json("images")) == 10
    assert "The 10 most suspicious of 30 labels" in text


def test_features_alone_have_no_images():
    page = Page(review.render(random_audit(4, 2), top=4))
    assert page.json("images") == []


def test_the_same_audit_is_the_same_page_and_another_one_has_another_digest():
    one, other = random_audit(9, 3), random_audit(9, 3, seed=1)
    assert review.render(one, top=9) == review.render(one, top=9)
    digests = {
        Page(review.render(audit, top=top)).json("content")["digest"]
        for audit, top in ((one, 9), (one, 8), (other, 9))
    }
    assert len(digests) == 3


def test_the_help_says_how_far_to_trust_the_list():
    audit = random_audit(4, 2)
    text = review.render(audit, top=4, remarks=["2 of <b>classes</b>\n", "kappa 0.10"])
    assert "<p>2 of &lt;b&gt;classes&lt;/b&gt;\\n</p>\n<p>kappa 0.10</p>" in text
    assert "How far to trust" not in review.render(audit, top=4)


def test_earlier_decisions_are_there_to_be_saved_again():
    earlier = [("dropped.png", "", "drop"), ("=a.png", "class 1", "other")]
    content = Page(review.render(random_audit(4, 2), top=4, earlier=earlier)).json("content")
    assert content["earlier"] == [list(row) for row in earlier]


@pytest.mark.parametrize("top", [0, 1])
def test_few_or_no_labels_are_a_page_too(top):
    assert len(Page(review.render(random_audit(4, 2), top=top)).json("content")["names"]) == top
