"""Figures: colours that can be told apart, statistics that are right, JSON that a page can draw."""

from __future__ import annotations

import base64
import itertools
import json
import re
import sys
import types

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from PIL import Image

from sami_tutorial import figures

# Colour vision deficiency at full severity, on linear RGB: Machado, Oliveira and Fernandes (2009),
# "A Physiologically-based Model for Simulation of Color Vision Deficiency", Table 1.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]]
    ),
    "deuteranopia": np.array(
        [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]
    ),
}
PAPER = {
    theme: figures.TEMPLATES[f"sami_{theme}"].layout.paper_bgcolor for theme in ("light", "dark")
}


def linear(color: str) -> np.ndarray:
    """'#rrggbb' as linear RGB (IEC 61966-2-1)."""
    rgb = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def contrast(color: str, other: str) -> float:
    """Contrast ratio of WCAG 2."""
    bright = sorted(linear(each) @ (0.2126, 0.7152, 0.0722) for each in (color, other))
    return (bright[1] + 0.05) / (bright[0] + 0.05)


def perceived(color: str, vision: str) -> np.ndarray:
    """OKLab coordinates (Ottosson, 2020) of a colour as seen with this vision."""
    seen = np.clip(VISION[vision] @ linear(color), 0, 1)
    to_lms = [[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]]
    to_lab = [[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]
    return np.array(to_lab) @ np.cbrt(np.array(to_lms) @ seen)


def in_theme(colors: dict[str, str], theme: str) -> dict[str, str]:
    shades = figures.page_style()["shades"]
    return {name: shades[each] if theme == "dark" else each for name, each in colors.items()}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("group", ["METHOD_COLORS", "SKILL_COLORS", "SPLIT_COLORS"])
def test_colors_stand_out_from_the_page(theme, group):
    for name, color in in_theme(getattr(figures, group), theme).items():
        assert contrast(color, PAPER[theme]) >= 3, (name, color)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_is_readable(theme):
    layout = figures.TEMPLATES[f"sami_{theme}"].layout
    assert contrast(layout.font.color, layout.paper_bgcolor) >= 7
    assert contrast(layout.hoverlabel.font.color, layout.hoverlabel.bgcolor) >= 7


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("group", ["METHOD_COLORS", "SKILL_COLORS", "SPLIT_COLORS"])
def test_colors_differ_for_every_eye(theme, group, vision):
    colors = in_theme(getattr(figures, group), theme)
    for (a, one), (b, other) in itertools.combinations(colors.items(), 2):
        distance = np.linalg.norm(perceived(one, vision) - perceived(other, vision))
        assert distance > 0.085, (a, b, distance)


def test_methods_have_a_name_a_color_and_a_dash():
    methods = set("sac oracle random tesac ccm satesac saccm pearl sb3".split())
    assert set(figures.METHOD_NAMES) == methods
    assert set(figures.METHOD_COLORS) == set(figures.METHOD_DASHES) == methods
    assert len(set(figures.METHOD_DASHES.values())) == len(methods)
    assert set(figures.SKILL_NAMES) == set(figures.SKILL_COLORS)
    assert set(figures.SPLIT_NAMES) == set(figures.SPLIT_COLORS) == {"train", "moderate", "extreme"}


def test_shades_can_be_swapped_back_and_forth():
    shades = figures.page_style()["shades"]
    assert len(set(shades.values())) == len(shades)
    assert not set(shades) & set(shades.values())
    json.dumps(figures.page_style(), allow_nan=False)
    light, dark = (figures.page_style()[theme]["layout"] for theme in ("light", "dark"))
    assert dark["colorway"] == [shades[each] for each in light["colorway"]]


def test_interval_of_two_runs_is_exact():
    # Means of two draws from {0, 1}: 0, 1/2, 1 with probability 1/4, 1/2, 1/4.
    rng = np.random.default_rng(0)
    assert figures.interval([0.0, 1.0], rng) == (0, 1)
    assert figures.interval([0.0, 1.0], rng, confidence=0.4) == (0.5, 0.5)


def test_interval_of_many_runs_is_normal():
    rng = np.random.default_rng(1)
    values = rng.normal(3, 2, 500)
    low, high = figures.interval(values, rng, resamples=20_000)
    half = 1.96 * values.std() / np.sqrt(500)
    np.testing.assert_allclose([low, high], values.mean() + np.array([-half, half]), atol=0.02)


def test_interval_keeps_trailing_axes_and_draws_runs_whole():
    values = np.random.default_rng(2).normal(size=(5, 3, 1))
    low, high = figures.interval(
        np.concatenate([values, 10 + values], axis=2), np.random.default_rng(3)
    )
    assert low.shape == high.shape == (3, 2)
    np.testing.assert_allclose(low[:, 1], 10 + low[:, 0])
    again, _ = figures.interval(values, np.random.default_rng(3))
    np.testing.assert_array_equal(again, low[:, :1])


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([], {}, "first axis"),
        (1.0, {}, "first axis"),
        ([1.0, np.nan], {}, "NaN"),
        ([1.0], {"confidence": 1.0}, "confidence"),
    ],
)
def test_interval_rejects(values, options, message):
    with pytest.raises(ValueError, match=message):
        figures.interval(values, np.random.default_rng(0), **options)


def curves(methods=("sac", "oracle"), seeds=(0, 1, 2), steps=(0, 100, 200)) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    rows = itertools.product(methods, seeds, steps)
    table = pd.DataFrame(rows, columns=["method", "seed", "env_steps"])
    return table.assign(
        split="train", episode_return=rng.normal(size=len(table)), success=rng.random(len(table))
    )


def test_learning_curves_show_mean_interval_and_every_seed():
    table = curves()
    figure = figures.learning_curves(table, rng=np.random.default_rng(7))
    assert [trace.name for trace in figure.data if trace.showlegend is None] == ["SAC", "Oracle"]
    rng = np.random.default_rng(7)
    for method in ("sac", "oracle"):
        *seeds, band, mean = [each for each in figure.data if each.legendgroup == method]
        rows = table[table["method"] == method]
        runs = rows.pivot(index="seed", columns="env_steps", values="episode_return").to_numpy()
        np.testing.assert_array_equal([trace.y for trace in seeds], runs)
        np.testing.assert_allclose(mean.y, runs.mean(axis=0))
        np.testing.assert_array_equal(mean.x, [0, 100, 200])
        low, high = figures.interval(runs, rng)
        np.testing.assert_allclose(band.y, np.concatenate([high, low[::-1]]))
        np.testing.assert_array_equal(band.x, [0, 100, 200, 200, 100, 0])
        assert mean.line.color == figures.METHOD_COLORS[method]
        assert mean.line.dash == figures.METHOD_DASHES[method]
        assert all("seed" in trace.name and trace.hoverinfo != "skip" for trace in seeds)


def test_learning_curves_choose_split_value_and_methods():
    table = pd.concat([curves(), curves().assign(split="extreme", success=0.25)])
    figure = figures.learning_curves(table, split="extreme", value="success", methods=["oracle"])
    assert {trace.legendgroup for trace in figure.data} == {"oracle"}
    np.testing.assert_allclose(figure.data[-1].y, 0.25)
    assert figure.layout.yaxis.title.text == "success rate"


def test_learning_curve_of_one_seed_has_no_band():
    figure = figures.learning_curves(curves(methods=["sac"], seeds=[5]))
    assert len(figure.data) == 2
    np.testing.assert_array_equal(figure.data[0].y, figure.data[1].y)


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (curves().drop(columns="seed"), {}, "no column 'seed'"),
        (pd.concat([curves(), curves().assign(split="extreme")]), {}, "choose one"),
        (curves(), {"split": "moderate"}, "no rows"),
        (curves().drop(columns="split"), {"split": "train"}, "no column 'split'"),
        (curves(methods=["sac", "ppo"]), {}, "'ppo'"),
        (curves(), {"methods": ["ccm"]}, "'ccm'"),
        (curves().drop(index=4), {}, "'sac', seed 1 at env_steps 100"),
    ],
)
def test_learning_curves_reject(table, options, message):
    with pytest.raises(ValueError, match=message):
        figures.learning_curves(table, **options)


def test_heatmap_draws_every_cell_where_it_belongs():
    values = np.array([[0.1, 0.2, np.nan], [0.4, 0.5, 0.6]])
    figure = figures.heatmap(
        values, [0.1, 1, 10], [1, 5], value_title="success rate", outlined=[(10, 5)]
    )
    trace = figure.data[0]
    np.testing.assert_array_equal(trace.z, values)
    assert list(trace.x) == ["0.1", "1", "10"] and list(trace.y) == ["1", "5"]
    assert (trace.zmin, trace.zmax) == (0.1, 0.6)
    frame = figure.layout.shapes[0]
    assert (frame.x0 + frame.x1, frame.y0 + frame.y1) == (4, 2)  # centred on column 2, row 1
    assert figures.compact(figure.to_plotly_json())["data"][0]["z"][0][2] is None


def test_heatmaps_share_one_scale_and_a_menu():
    maps = {"SAC": [[0.0, 1.0]], "Oracle": [[2.0, 3.0]]}
    figure = figures.heatmap(maps, [1, 2], [1], value_title="return")
    assert [trace.visible for trace in figure.data] == [True, False]
    assert {(trace.zmin, trace.zmax) for trace in figure.data} == {(0, 3)}
    shown = [list(button.args[1]) for button in figure.layout.updatemenus[0].buttons]
    assert shown == [[True, False], [False, True]]


def test_a_diverging_scale_has_its_middle_at_zero():
    figure = figures.heatmap(
        [[-1.0, 4.0]], [1, 2], [1], value_title="gap", colorscale=figures.DIVERGING
    )
    assert (figure.data[0].zmin, figure.data[0].zmax) == (-4, 4)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.zeros((3, 2)), {}, "shape"),
        ({"a": np.zeros((2, 3)), "b": np.zeros((3, 2))}, {}, "values.'b'."),
        ({}, {}, "empty"),
        (np.full((2, 3), np.nan), {}, "finite"),
        (np.zeros((2, 3)), {"outlined": [(7, 1)]}, "not on the map"),
    ],
)
def test_heatmap_rejects(values, options, message):
    with pytest.raises(ValueError, match=message):
        figures.heatmap(values, [1, 2, 3], [1, 2], value_title="v", **options)


@pytest.mark.parametrize("count", range(1, 6))
def test_skill_map_gives_each_cell_its_skills_color(count):
    names = list(figures.SKILL_NAMES)[:count]
    skills = np.random.default_rng(count).permutation([names, names[::-1]])
    figure = figures.skill_map(skills, range(count), [0, 1])
    trace = figures.compact(figure.to_plotly_json())["data"][0]
    edges = [edge for edge, _ in trace["colorscale"]]
    assert edges == sorted(edges) and (edges[0], edges[-1]) == (0, 1)
    for row, column in np.ndindex(skills.shape):
        place = (trace["z"][row][column] - trace["zmin"]) / (trace["zmax"] - trace["zmin"])
        below = [color for edge, color in trace["colorscale"] if edge <= place]
        above = [color for edge, color in trace["colorscale"] if edge > place]
        assert below[-1] == above[0] == figures.SKILL_COLORS[skills[row, column]]
    legend = {each.name: each.marker.color for each in figure.data[1:]}
    assert legend == {figures.SKILL_NAMES[name]: figures.SKILL_COLORS[name] for name in names}


def test_skill_map_rejects():
    with pytest.raises(ValueError, match="shape"):
        figures.skill_map([["push"]], [1, 2], [1])
    with pytest.raises(ValueError, match="'throw'"):
        figures.skill_map([["push", "throw"]], [1, 2], [1])


def test_slider_names_its_frames():
    figure = figures.new_figure("time (s)", "height (m)")
    figure.frames = [go.Frame(data=[go.Scatter(y=[i])]) for i in range(3)]
    figures.add_slider(figure, ["0.5", "1", "2"], prefix="mass = ")
    assert [frame.name for frame in figure.frames] == ["0.5", "1", "2"]
    assert [step.args[0] for step in figure.layout.sliders[0].steps] == [("0.5",), ("1",), ("2",)]
    for labels in (["1", "2"], ["1", "1", "2"]):
        with pytest.raises(ValueError, match="3 different ones"):
            figures.add_slider(figure, labels)


def test_menu_needs_a_label_per_trace():
    figure = figures.new_figure("a", "b").add_scatter(y=[1])
    with pytest.raises(ValueError, match="1 traces"):
        figures.add_menu(figure, ["one", "two"])


def test_compact_rounds_floats_and_nothing_else():
    figure = figures.new_figure("a", "b")
    figure.add_scatter(x=np.array([0.123456789, 1e-9 / 3, 300_000.0]), y=[1.5, np.nan, np.inf])
    figure.add_heatmap(z=np.arange(6, dtype=np.int32).reshape(2, 3) + 1_234_567)
    line, cells = figures.compact(figure.to_plotly_json())["data"]
    assert line["x"] == [0.12346, 3.3333e-10, 300_000]
    assert line["y"] == [1.5, None, None]
    assert cells["z"] == [[1234567, 1234568, 1234569], [1234570, 1234571, 1234572]]
    assert figures.compact({"flag": np.True_, "none": None, "text": "x"}) == {
        "flag": True,
        "none": None,
        "text": "x",
    }


def test_bundle_holds_the_figure_and_its_alternative():
    figure = figures.new_figure("a", "b").add_scatter(y=np.array([1.0, np.nan]))
    data, metadata = figures.bundle(figure, alt=" A line\n that ends. ")
    assert data["text/plain"] == metadata[figures.PLOTLY_MIME]["alt"] == "A line that ends."
    content = json.loads(json.dumps(data[figures.PLOTLY_MIME], allow_nan=False))
    assert content["data"][0]["y"] == [1, None]
    # No button uploads the figure to another site.
    assert content["config"]["showSendToCloud"] is False
    template = content["layout"]["template"]
    assert template["layout"]["font"]["family"] == figures.FONT
    assert len(json.dumps(content)) < 2500
    assert go.Figure({k: v for k, v in content.items() if k != "config"}).data[0].y == (1, None)


@pytest.mark.parametrize("alt", ["", "  \n", None])
def test_a_figure_without_an_alternative_is_refused(alt):
    with pytest.raises(ValueError, match="alt"):
        figures.show(figures.new_figure("a", "b"), alt=alt)


def test_colab_gets_its_own_form(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    data, _ = figures.bundle(figures.new_figure("axis of x", "b"), alt="Nothing yet.")
    assert "axis of x" in data["text/html"] and "Plotly.newPlot" in data["text/html"]


def test_show_passes_the_display_on(monkeypatch):
    calls = []
    monkeypatch.setattr("IPython.display.display", lambda *args, **named: calls.append(named))
    figure = figures.new_figure("a", "b")
    figures.show(figure, alt="Empty.")
    figures.show(figure, alt="Empty.", display_id="curve")
    figures.show(figure, alt="Empty.", display_id="curve", update=True)
    assert [each.get("display_id") for each in calls] == [None, "curve", "curve"]
    assert [each.get("update") for each in calls] == [None, False, True]
    with pytest.raises(ValueError, match="display_id"):
        figures.show(figure, alt="Empty.", update=True)


def test_video_is_named_or_embedded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=re.escape("no file a.webp")):
        figures.video_html("a.webp", alt="x", caption="y")
    Image.new("RGB", (32, 18)).save("a.webp")
    with pytest.raises(ValueError, match=re.escape("no file a-poster.webp")):
        figures.video_html("a.webp", alt="x", caption="y")
    Image.new("RGB", (32, 18)).save("a-poster.webp")
    page = figures.video_html("a.webp", alt='A "hop"', caption="m < 2")
    assert 'src="a.webp" width="32" height="18"' in page and 'srcset="a-poster.webp"' in page
    assert 'alt="A &quot;hop&quot;"' in page and "m &lt; 2" in page
    embedded = figures.video_html("a.webp", alt="x", caption="y", embed=True)
    content = base64.b64encode((tmp_path / "a.webp").read_bytes()).decode()
    assert f'src="data:image/webp;base64,{content}"' in embedded and '="a' not in embedded
    with pytest.raises(ValueError, match="alt"):
        figures.video_html("a.webp", alt="", caption="y")


def dots(*films: str | None) -> go.Figure:
    """A figure with two traces: one whose dots have these films, one without."""
    figure = figures.new_figure("a", "b").add_scatter(y=[1, 2], customdata=np.array(films))
    return figure.add_scatter(y=[1, 2])


FILMS = {"a": figures.DotFilm("task 1", "Runs."), "b": figures.DotFilm("task 2", "Falls.")}


def test_films_reach_the_page_with_their_words():
    figure = dots("a", "b")
    assert figures.films_of(figure.layout.to_plotly_json()) == {}
    figures.add_films(figure, FILMS, folder="_static/x", prompt="Point.")
    content = figures.bundle(figure, alt="Dots.")[0][figures.PLOTLY_MIME]
    assert content["data"][0]["customdata"] == ["a", "b"]
    assert figures.films_of(json.loads(json.dumps(content["layout"]))) == {
        "folder": "_static/x",
        "prompt": "Point.",
        "each": {
            "a": {"label": "task 1", "caption": "Runs."},
            "b": {"label": "task 2", "caption": "Falls."},
        },
    }


@pytest.mark.parametrize(
    ("named", "options", "message"),
    [
        (("a", "c"), {}, r"no entry for the dots' \['c'\] and no dot for its \['b'\]"),
        (("a", "a"), {}, r"no dot for its \['b'\]"),
        (("a", "b"), {"prompt": " "}, "prompt is empty"),
        (("a", "b"), {"films": {**FILMS, "b": figures.DotFilm("", "x")}}, "label of b is empty"),
        (("a", "b"), {"films": {**FILMS, "a": figures.DotFilm("x", "")}}, "caption of a is empty"),
        (("a", "b"), {"folder": "videos"}, "'videos'.*below '_static/'"),
    ],
)
def test_films_must_fit_their_dots(named, options, message):
    given = {"films": FILMS, "folder": "_static/x", "prompt": "Point."} | options
    with pytest.raises(ValueError, match=message):
        figures.add_films(dots(*named), given.pop("films"), **given)


def test_translucent():
    assert figures.translucent("#0a80ff", 0.25) == "rgba(10,128,255,0.25)"
    for color, alpha in (("red", 0.5), ("#0a80ff", 1.5)):
        with pytest.raises(ValueError):
            figures.translucent(color, alpha)
