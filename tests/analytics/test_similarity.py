"""Results are compared for every control tag: symmetric, from 0 to 1, 1 for equal ones, and as published."""

from __future__ import annotations

import base64
import copy
import io
import math
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from label_studio_sdk.converter import brush
from PIL import Image
from scipy.stats import kendalltau

from labelguard_analytics import BadResult, similarity
from labelguard_analytics.similarities import TAGS
from labelguard_analytics.similarities.masks import decode_rle, mask_of
from labelguard_analytics.similarities.matching import matched
from labelguard_analytics.similarities.orders import rank_biased_overlap

Item = dict[str, Any]
Make = Callable[[np.random.Generator, int], Item]

WIDTH, HEIGHT = 60, 40


def item(kind: str, value: dict[str, Any], name: int = 0, **more: Any) -> Item:
    """A result item as Label Studio writes it."""
    return {"id": f"region{name}", "type": kind, "from_name": "tag", "to_name": "object", "value": value, **more}


def picture(kind: str, value: dict[str, Any], name: int = 0) -> Item:
    """A region of a picture."""
    return item(kind, value, name, original_width=WIDTH, original_height=HEIGHT, image_rotation=0)


def packed(mask: Any) -> list[int]:
    """A mask as the SDK packs it."""
    pack: Callable[[Any], list[int]] = brush.mask2rle
    return pack(mask)


def label(rng: np.random.Generator) -> list[str]:
    """One of three labels."""
    return [str(rng.choice(["Car", "Bus", "Tram"]))]


def box(kind: str, turned: bool = True) -> Make:
    """A rectangle, which may be turned."""

    def make(rng: np.random.Generator, name: int) -> Item:
        x, y, width, height = rng.uniform(1, 45, 4).tolist()
        turn = float(rng.integers(0, 360)) if turned and rng.random() < 0.5 else 0
        value = {"x": x, "y": y, "width": width, "height": height, "rotation": turn, kind: label(rng)}
        return picture(kind, value, name)

    return make


def ellipse(rng: np.random.Generator, name: int) -> Item:
    """An ellipse, turned."""
    x, y, across, down = rng.uniform(5, 45, 4).tolist()
    value = {"x": x, "y": y, "radiusX": across, "radiusY": down, "rotation": float(rng.integers(0, 360))}
    return picture("ellipselabels", {**value, "ellipselabels": label(rng)}, name)


def polygon(rng: np.random.Generator, name: int) -> Item:
    """A polygon, which may cross itself."""
    points = rng.uniform(0, 100, (int(rng.integers(3, 9)), 2)).tolist()
    return picture("polygonlabels", {"points": points, "closed": True, "polygonlabels": label(rng)}, name)


def point(rng: np.random.Generator, name: int) -> Item:
    """A key point."""
    x, y = rng.uniform(0, 100, 2).tolist()
    return picture("keypointlabels", {"x": x, "y": y, "width": 0.5, "keypointlabels": label(rng)}, name)


def vector(rng: np.random.Generator, name: int) -> Item:
    """An open or closed line."""
    vertices = [{"id": str(n), "x": x, "y": y} for n, (x, y) in enumerate(rng.uniform(0, 100, (4, 2)).tolist())]
    value = {"vertices": vertices, "closed": bool(rng.random() < 0.5), "vectorlabels": label(rng)}
    return picture("vectorlabels", value, name)


def blob(rng: np.random.Generator) -> Any:
    """A painted rectangle."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    top, left = rng.integers(0, 20, 2)
    mask[top : top + rng.integers(1, 20), left : left + rng.integers(1, 40)] = 255
    return mask


def stroke(rng: np.random.Generator, name: int) -> Item:
    """A brush stroke."""
    value = {"format": "rle", "rle": packed(blob(rng)), "brushlabels": label(rng)}
    return picture("brushlabels", value, name)


def png(mask: Any, mode: str = "RGBA") -> str:
    """A mask as the data URL of a PNG; with transparency, painted black on nothing as Label Studio does."""
    if mode in ("RGBA", "LA"):
        layers = np.zeros((*mask.shape, 4), dtype=np.uint8)
        layers[:, :, 3] = mask
        image = Image.fromarray(layers).convert(mode)
    else:
        image = Image.fromarray(mask).convert(mode)
    kept = io.BytesIO()
    image.save(kept, "PNG")
    return "data:image/png;base64," + base64.b64encode(kept.getvalue()).decode()


def bitmask(rng: np.random.Generator, name: int) -> Item:
    """A bitmask."""
    return picture("bitmasklabels", {"imageDataURL": png(blob(rng)), "bitmasklabels": label(rng)}, name)


def video(rng: np.random.Generator, name: int) -> Item:
    """A track with three key frames."""
    frames = np.sort(rng.choice(np.arange(1, 60), 3, replace=False)).tolist()
    sequence = [
        {
            "frame": frame,
            "enabled": bool(rng.random() < 0.7),
            "rotation": float(rng.integers(0, 2) * 15),
            "time": frame / 24,
            **dict(zip(("x", "y", "width", "height"), rng.uniform(1, 50, 4).tolist(), strict=True)),
        }
        for frame in frames
    ]
    return item(
        "videorectangle", {"framesCount": 60, "duration": 2.5, "sequence": sequence, "labels": label(rng)}, name
    )


def span(kind: str, whole: bool = True) -> Make:
    """A stretch of text or time."""

    def make(rng: np.random.Generator, name: int) -> Item:
        start, length = (rng.integers(0, 80), rng.integers(1, 20)) if whole else rng.uniform(0.1, 40, 2)
        return item(kind, {"start": float(start), "end": float(start + length), kind: label(rng)}, name)

    return make


def paragraph(rng: np.random.Generator, name: int) -> Item:
    """A stretch over paragraphs."""
    first, last = np.sort(rng.integers(0, 4, 2)).tolist()
    begin, end = np.sort(rng.integers(0, 30, 2)).tolist()
    value = {"start": str(first), "end": str(last), "startOffset": begin, "endOffset": end + 1}
    return item("paragraphlabels", {**value, "paragraphlabels": label(rng)}, name)


def hypertext(rng: np.random.Generator, name: int) -> Item:
    """A stretch of a page, which has offsets in its whole text."""
    start, length = rng.integers(0, 80), rng.integers(1, 20)
    offsets = {"start": int(start), "end": int(start + length)}
    value = {"start": "/p[1]/text()[1]", "end": "/p[1]/text()[1]", "startOffset": 0, "endOffset": 1}
    return item("hypertextlabels", {**value, "globalOffsets": offsets, "hypertextlabels": label(rng)}, name)


def timeline(rng: np.random.Generator, name: int) -> Item:
    """Two stretches of frames."""
    starts = np.sort(rng.integers(1, 90, 2)).tolist()
    ranges = [{"start": start, "end": start + int(rng.integers(0, 12))} for start in starts]
    return item("timelinelabels", {"ranges": ranges, "timelinelabels": label(rng)}, name)


REGIONS: dict[str, Make] = {
    "Rectangle": box("rectangle"),
    "RectangleLabels": box("rectanglelabels"),
    "PolygonLabels": polygon,
    "EllipseLabels": ellipse,
    "KeyPointLabels": point,
    "VectorLabels": vector,
    "BrushLabels": stroke,
    "BitmaskLabels": bitmask,
    "VideoRectangle": video,
    "Labels": span("labels"),
    "TimeSeriesLabels": span("timeserieslabels", whole=False),
    "ParagraphLabels": paragraph,
    "HyperTextLabels": hypertext,
    "TimelineLabels": timeline,
}
WORDS = ["a red bus", "a red car", "", "the bus is red", "naïve café"]
PATHS = [["Animal"], ["Animal", "Dog"], ["Animal", "Dog", "Poodle"], ["Animal", "Cat"], ["Plant", "Rose"]]


def answer(tag: str, rng: np.random.Generator) -> list[Item]:
    """A result of one answer for the whole task."""
    if tag == "Choices":
        return [item("choices", {"choices": sorted(set(rng.choice(["a", "b", "c"], 2).tolist()))})]
    if tag == "Taxonomy":
        return [item("taxonomy", {"taxonomy": [PATHS[n] for n in set(rng.integers(0, 5, 2).tolist())]})]
    if tag == "Pairwise":
        return [item("pairwise", {"selected": str(rng.choice(["left", "right"]))})]
    if tag == "Rating":
        return [item("rating", {"rating": int(rng.integers(1, 6))})]
    if tag == "Number":
        return [item("number", {"number": float(rng.integers(-5, 20))})]
    if tag == "DateTime":
        return [item("datetime", {"datetime": f"2025-01-01T{rng.integers(0, 24):02d}:30"})]
    if tag == "TextArea":
        return [item("textarea", {"text": [str(one) for one in rng.choice(WORDS, 2)]})]
    ids = [str(one) for one in rng.permutation(list("abcde"))]
    cut = int(rng.integers(1, 5))
    return [item("ranker", {"ranker": {"best": ids[:cut], "rest": ids[cut:]}})]


ANSWERS = ["Choices", "Taxonomy", "Pairwise", "Rating", "Number", "DateTime", "TextArea", "Ranker"]


def drawn(tag: str, rng: np.random.Generator) -> list[Item]:
    """A random result for a tag."""
    if tag in ANSWERS:
        return answer(tag, rng)
    if tag == "Relations":
        regions = [span("labels")(rng, n) for n in range(3)]
        return regions + [
            {"type": "relation", "from_id": "region0", "to_id": f"region{n}", "direction": d, "labels": label(rng)}
            for n, d in ((1, "right"), (2, str(rng.choice(["left", "bi"]))))
        ]
    return [REGIONS[tag](rng, n) for n in range(int(rng.integers(1, 4)))]


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *((tag, {}) for tag in [*ANSWERS, *REGIONS, "Relations"]),
    *(("Choices", {"measure": one}) for one in ("exact", "f1", "masi")),
    *(("Taxonomy", {"measure": one}) for one in ("exact", "jaccard", "path")),
    *(("TextArea", {"measure": one}) for one in ("words", "chrf", "exact")),
    ("Ranker", {"measure": "rbo"}),
    ("Number", {"scale": (-5, 20)}),
    ("Number", {"tolerance": 2.0}),
    ("DateTime", {"tolerance": "2h"}),
    ("RectangleLabels", {"threshold": 0.5}),
    ("RectangleLabels", {"labels": "ignore"}),
    ("Labels", {"measure": "bio"}),
    ("Labels", {"measure": "exact"}),
    ("BrushLabels", {"measure": "dice", "merge": False}),
]


@pytest.mark.parametrize(("tag", "options"), OPTIONS, ids=[f"{tag}-{options}" for tag, options in OPTIONS])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_measure_keeps_its_promises(tag: str, options: dict[str, Any], seed: int) -> None:
    """Symmetric, from 0 to 1, 1 for equal results, and blind to the order of regions and to their ids."""
    rng = np.random.default_rng(seed)
    one, other = drawn(tag, rng), drawn(tag, rng)
    found = similarity(tag, one, other, **options)

    assert 0.0 <= found <= 1.0
    assert found == pytest.approx(similarity(tag, other, one, **options), abs=1e-9)
    assert similarity(tag, one, copy.deepcopy(one), **options) == pytest.approx(1.0)
    if tag in REGIONS:
        renamed = [{**region, "id": f"other{n}"} for n, region in enumerate(one[::-1])]
        assert found == pytest.approx(similarity(tag, renamed, other, **options), abs=1e-9)


@pytest.mark.parametrize("tag", sorted(TAGS))
def test_two_empty_results_are_alike(tag: str) -> None:
    """Finding nothing is an answer, too, and agrees with itself only."""
    assert similarity(tag, [], []) == 1.0
    if tag in REGIONS:
        assert similarity(tag, [], [REGIONS[tag](np.random.default_rng(1), 0)]) == 0.0


@pytest.mark.parametrize("tag", ["RectangleLabels", "EllipseLabels", "PolygonLabels", "KeyPointLabels", "Labels"])
def test_the_further_away_the_less_alike(tag: str) -> None:
    """Similarity never grows when a region moves away."""
    first = REGIONS[tag](np.random.default_rng(3), 0)
    scores = []
    for step in range(20):
        moved = copy.deepcopy(first)
        value = moved["value"]
        if "points" in value:
            value["points"] = [[x + 3 * step, y] for x, y in value["points"]]
        else:
            for key in ("x", "start", "end"):
                if key in value:
                    value[key] += 3 * step
        scores.append(similarity(tag, [first], [moved]))

    assert scores[0] == pytest.approx(1.0)
    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(scores))
    assert scores[-1] < 0.1


def rectangle(x: float, y: float, width: float, height: float, turn: float = 0, name: str = "Car") -> Item:
    """A labelled box on a picture of 200 x 100 pixels."""
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": turn, "rectanglelabels": [name]}
    return item("rectanglelabels", value, original_width=200, original_height=100)


def test_half_covered_boxes_share_a_third() -> None:
    """Half of each of two equal boxes is shared: 1/2 over 3/2."""
    assert similarity("RectangleLabels", [rectangle(0, 0, 10, 10)], [rectangle(5, 0, 10, 10)]) == pytest.approx(1 / 3)


def test_boxes_turn_around_their_upper_left_corner_in_pixels() -> None:
    """A box of 20 x 20 pixels turned by 90 degrees is the upright one to the left of its corner."""
    turned, upright = rectangle(50, 50, 10, 20, turn=90), rectangle(40, 50, 10, 20)

    assert similarity("RectangleLabels", [turned], [upright]) == pytest.approx(1.0)


def test_ellipses_have_their_own_area() -> None:
    """A circle inside one of twice the radius covers a quarter, and a circle may be turned at will."""

    def circle(radius: float, turn: float) -> list[Item]:
        value = {"x": 50, "y": 50, "radiusX": radius, "radiusY": radius, "rotation": turn, "ellipselabels": ["a"]}
        return [item("ellipselabels", value)]

    assert similarity("EllipseLabels", circle(20, 0), circle(10, 33)) == pytest.approx(0.25)


def test_a_polygon_that_crosses_itself_has_the_area_it_encloses() -> None:
    """A bow tie covers half of its square."""

    def ring(*points: tuple[int, int]) -> list[Item]:
        return [item("polygonlabels", {"points": [list(point) for point in points], "polygonlabels": ["a"]})]

    square, tie = ring((0, 0), (10, 0), (10, 10), (0, 10)), ring((0, 0), (10, 10), (10, 0), (0, 10))
    assert similarity("PolygonLabels", square, tie) == pytest.approx(0.5)


def test_regions_are_matched_optimally() -> None:
    """A greedy match would take .9 and be left with 0; the best one has .8 twice."""
    assert matched([[0.9, 0.8], [0.8, 0.0]], 2, 2) == pytest.approx(0.8)


def test_labels_and_places_can_be_told_apart() -> None:
    """With labels ignored, what remains is whether the same things were found."""
    one, other = [rectangle(0, 0, 10, 10)], [rectangle(0, 0, 10, 10, name="Bus")]

    assert similarity("RectangleLabels", one, other) == 0.0
    assert similarity("RectangleLabels", one, other, labels="ignore") == 1.0


def test_a_missing_region_costs_its_share() -> None:
    """One of two regions found is an F1 of two thirds."""
    both = [rectangle(0, 0, 10, 10), rectangle(50, 50, 10, 10)]

    assert similarity("RectangleLabels", both, both[:1]) == pytest.approx(2 / 3)


def test_geometry_of_its_own_takes_labels_from_the_labels_item() -> None:
    """A Rectangle with a Labels tag beside it writes two items with one id."""

    def pair(name: str) -> list[Item]:
        value = {"x": 0, "y": 0, "width": 10, "height": 10, "rotation": 0}
        return [item("rectangle", value), item("labels", {**value, "labels": [name]})]

    assert similarity("Rectangle", pair("Car"), pair("Car")) == 1.0
    assert similarity("Rectangle", pair("Car"), pair("Bus")) == 0.0


def test_answers_for_regions_compare_on_matched_regions() -> None:
    """Choices given for each box: places times answers, whatever the ids."""

    def answered(*choices: str, first: int = 0) -> list[Item]:
        found = []
        for n, choice in enumerate(choices):
            region = {**rectangle(30 * n, 0, 10, 10), "id": f"r{first + n}"}
            found += [region, {**item("choices", {"choices": [choice]}), "id": f"r{first + n}"}]
        return found

    assert similarity("Choices", answered("old", "new"), answered("old", "new", first=7)) == 1.0
    assert similarity("Choices", answered("old", "new"), answered("old", "old", first=7)) == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_brush_strokes_are_read_as_the_sdk_reads_them(seed: int) -> None:
    """Our reader of packed runs and Label Studio's give the same mask."""
    rng = np.random.default_rng(seed)
    mask = ((rng.random((37, 53)) < [0.02, 0.5, 0.98, 0.0, 1.0][seed]) * 255).astype(np.uint8)
    rle = packed(mask)
    theirs = brush.decode_rle(rle).reshape(37, 53, 4)[:, :, 3] > 0

    assert np.array_equal(theirs, decode_rle(bytes(rle), 53, 37))
    assert np.array_equal(theirs, mask > 0)


@pytest.mark.parametrize("mode", ["RGBA", "L", "LA", "RGB", "P", "1"])
def test_bitmasks_are_read_as_pillow_reads_them(mode: str) -> None:
    """PNG pictures of every kind a mask comes in."""
    rng = np.random.default_rng(2)
    mask = (rng.random((31, 45)) < 0.3).astype(np.uint8) * 255

    assert np.array_equal(mask > 0, mask_of(item("bitmask", {"imageDataURL": png(mask, mode)})))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_bitmask_painted_all_over_is_full(mode: str) -> None:
    """Black everywhere and nothing transparent is a full mask, not an empty one."""
    full = np.full((8, 9), 255, dtype=np.uint8)

    assert mask_of(item("bitmask", {"imageDataURL": png(full, mode)})).all()


@pytest.mark.parametrize("kind", ["flat", "slope", "noise"])
def test_every_prediction_of_png_rows_is_undone(kind: str) -> None:
    """Pillow chooses among five predictions by row; pictures of several kinds need all of them."""
    rng = np.random.default_rng(4)
    rows, columns = np.mgrid[0:50, 0:70]
    grey = {
        "flat": np.where((rows // 7 + columns // 9) % 2, 200, 0),
        "slope": (rows * 2 + columns) % 256 * (columns > 20),
        "noise": rng.integers(0, 256, (50, 70)) * (rows > 9),
    }[kind].astype(np.uint8)

    assert np.array_equal(grey > 0, mask_of(item("bitmask", {"imageDataURL": png(grey, "L")})))


def test_strokes_of_one_label_are_one_mask() -> None:
    """It is of no matter in how many strokes something was painted."""

    def painted(*masks: Any) -> list[Item]:
        return [
            picture("brushlabels", {"format": "rle", "rle": packed(mask), "brushlabels": ["a"]}, n)
            for n, mask in enumerate(masks)
        ]

    left, right = (np.zeros((HEIGHT, WIDTH), dtype=np.uint8) for _ in range(2))
    left[5:20, 5:20], right[5:20, 20:35] = 255, 255
    assert similarity("BrushLabels", painted(left, right), painted(left | right)) == 1.0
    assert similarity("BrushLabels", painted(left, right), painted(left | right), merge=False) < 0.5
    assert similarity("BrushLabels", painted(left), painted(left | right)) == pytest.approx(0.5)
    assert similarity("BrushLabels", painted(left), painted(left | right), measure="dice") == pytest.approx(2 / 3)


def test_tracks_share_space_and_time() -> None:
    """A track that goes on for twice as long shares half; boxes between key frames are interpolated."""

    def moving(last: int, *between: int) -> list[Item]:
        sequence = [
            {"frame": f, "x": f, "y": 0, "width": 10, "height": 10, "rotation": 0, "enabled": f != last}
            for f in (1, *between, last)
        ]
        return [item("videorectangle", {"framesCount": 100, "sequence": sequence, "labels": ["a"]})]

    assert similarity("VideoRectangle", moving(20), moving(20, 5, 11)) == pytest.approx(1.0)
    assert similarity("VideoRectangle", moving(20), moving(40)) == pytest.approx(0.5)


def test_a_single_ranking_is_kendalls_tau() -> None:
    """For one list without ties, (1 + tau) / 2 as scipy computes it."""
    rng = np.random.default_rng(5)
    ids = list("abcdefgh")
    one, other = (rng.permutation(ids).tolist() for _ in range(2))
    places = [[order.index(name) for name in ids] for order in (one, other)]
    found = similarity("Ranker", [item("ranker", {"ranker": one})], [item("ranker", {"ranker": other})])

    assert (1 + kendalltau(*places).statistic) / 2 == pytest.approx(found)


def test_rank_biased_overlap_weighs_the_top_most() -> None:
    """A change at the top costs more than one at the end; disjoint lists share nothing."""
    ids = "abcdefgh"

    assert rank_biased_overlap(ids, ids) == pytest.approx(1.0)
    assert rank_biased_overlap(ids, "bacdefgh") < rank_biased_overlap(ids, "abcdefhg") < 1.0
    assert rank_biased_overlap("abc", "xyz") == 0.0


def test_masi_is_passonneaus() -> None:
    """Passonneau (2006): a subset counts 2/3 of Jaccard, a mere overlap 1/3."""

    def chosen(*labels: str) -> list[Item]:
        return [item("choices", {"choices": list(labels)})]

    assert similarity("Choices", chosen("a", "b"), chosen("a"), measure="masi") == pytest.approx(1 / 2 * 2 / 3)
    assert similarity("Choices", chosen("a", "b"), chosen("a", "c"), measure="masi") == pytest.approx(1 / 3 * 1 / 3)


def test_relations_are_found_again_after_matching_regions() -> None:
    """Ids differ between results; an edge the other way round is another edge, unless it is written backwards."""

    def linked(shift: int, start: int, end: int, direction: str = "right") -> list[Item]:
        regions = [
            {**item("labels", {"start": 10 * n + shift, "end": 10 * n + 8, "labels": ["a"]}), "id": f"{shift}{n}"}
            for n in range(3)
        ]
        return [
            *regions,
            {"type": "relation", "from_id": f"{shift}{start}", "to_id": f"{shift}{end}", "direction": direction},
        ]

    assert similarity("Relations", linked(0, 0, 1), linked(1, 0, 1)) == 1.0
    assert similarity("Relations", linked(0, 0, 1), linked(1, 1, 0)) == 0.0
    assert similarity("Relations", linked(0, 0, 1), linked(1, 1, 0, "left")) == 1.0
    assert similarity("Relations", linked(0, 0, 1, "bi"), linked(1, 1, 0, "bi")) == 1.0


def test_chrf_is_the_mean_f1_of_character_n_grams() -> None:
    """Counted by hand for two words."""

    def grams(word: str, n: int) -> Counter[str]:
        return Counter(word[i : i + n] for i in range(len(word) - n + 1))

    one, other = "labels", "labelled"
    scores = []
    for n in range(1, 7):
        first, second = grams(one, n), grams(other, n)
        hits = (first & second).total()
        precision, recall = hits / max(first.total(), 1), hits / second.total()
        scores.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    a, b = ([item("textarea", {"text": [word]})] for word in (one, other))

    assert math.fsum(scores) / 6 == pytest.approx(similarity("TextArea", a, b, measure="chrf"))


def test_dates_are_alike_within_their_tolerance() -> None:
    """Six hours are a quarter of a day, in any time zone."""
    one, other = ([item("datetime", {"datetime": text})] for text in ("2025-01-01", "2025-01-01T07:00+01:00"))

    assert similarity("DateTime", one, other) == pytest.approx(0.75)
    assert similarity("DateTime", one, other, tolerance=0) == 0.0


@pytest.mark.parametrize(
    ("tag", "one", "options", "says"),
    [
        ("Choice", [], {}, "no control tag 'Choice' to compare; did you mean 'Choices'"),
        ("Choices", [], {"mesure": "f1"}, "Choices takes no option 'mesure'; it takes measure"),
        ("Choices", {}, {}, "must be a list of Label Studio result items, not a dict"),
        ("Choices", ["a"], {}, "Item 0 of a result must be an object with a type"),
        ("Choices", [{"type": "choices"}], {}, "must have an object as its value"),
        ("Rating", [item("rating", {"rating": "good"})], {}, "a finite number as its 'rating'"),
        ("Rating", [item("rating", {"rating": math.nan})], {}, "a finite number as its 'rating'"),
        ("Rating", [], {"scale": (5, 1)}, "scale must name a lower and a higher number"),
        ("DateTime", [item("datetime", {"datetime": "soon"})], {}, "'soon', which is no date"),
        ("RectangleLabels", [item("rectanglelabels", {"x": 1, "y": 1, "height": 2})], {}, "number as its 'width'"),
        ("PolygonLabels", [item("polygonlabels", {"points": [[1, 2], [3]]})], {}, "points of two finite numbers"),
        ("BrushLabels", [picture("brushlabels", {"rle": [1, 2, 3]})], {}, "ends before it is complete"),
        ("BrushLabels", [item("brushlabels", {"rle": [1, 2, 3]})], {}, "needs original_width"),
        ("BitmaskLabels", [item("bitmasklabels", {"imageDataURL": "data:,x"})], {}, "PNG picture"),
        ("Ranker", [item("ranker", {"ranker": {"a": ["x", "x"]}})], {}, "every item id once"),
        (
            "RectangleLabels",
            [rectangle(0, 0, 1, 1)],
            {"threshold": 2},
            "threshold must be above 0 and at most 1, but it is 2",
        ),
    ],
)
def test_what_cannot_be_compared_is_said(tag: str, one: Any, options: dict[str, Any], says: str) -> None:
    """One sentence for what is wrong with the tag, the result or the options."""
    with pytest.raises(ValueError, match=says):
        similarity(tag, one, one, **options)


@pytest.mark.parametrize(
    ("tag", "kind", "value"),
    [
        ("Taxonomy", "taxonomy", None),
        ("TimelineLabels", "timelinelabels", {"ranges": None}),
        ("VectorLabels", "vectorlabels", {"vertices": 1.5}),
        ("EllipseLabels", "ellipselabels", {"x": None}),
    ],
)
def test_a_broken_value_is_said_in_a_sentence_about_its_item(tag: str, kind: str, value: Any) -> None:
    """Whatever is missing inside an item, and with the right article."""
    one = [{"id": "r", "from_name": "f", "to_name": "t", "type": kind, "value": value}]
    with pytest.raises(BadResult, match=f"^An? {kind} item must have"):
        similarity(tag, one, one)


def test_an_answer_that_chooses_nothing_is_like_no_answer() -> None:
    """A pairwise or datetime item with an empty list is not an error."""
    assert similarity("Pairwise", [item("pairwise", {"selected": []})], []) == 1.0
    assert similarity("DateTime", [item("datetime", {"datetime": []})], []) == 1.0


def test_broken_results_are_an_error_of_their_own() -> None:
    """So that a caller can leave them out."""
    with pytest.raises(BadResult):
        similarity("Rating", [item("rating", {})], [])
