"""One look for every figure of the book: colours, Plotly templates, and the figures drawn often.

A colour means the same thing in every chapter: one per method, one per skill, one per task set.
Every colour exists in two shades, for a light and for a dark page; figures are written in the light
shades, and the book's page swaps shades and template when the reader changes the theme
(:func:`page_style`). The shades keep apart under the common colour vision deficiencies, and methods
differ in their dash pattern as well. Built in chapter 1, *Tasks and skills*.
"""

from __future__ import annotations

import base64
import html
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
from numpy.typing import ArrayLike
from PIL import Image

from sami_tutorial import download
from sami_tutorial.evaluate import interval as interval
from sami_tutorial.results import load_bytes

PLOTLY_MIME = "application/vnd.plotly.v1+json"

METHOD_NAMES = {
    "sac": "SAC",
    "oracle": "Oracle",
    "random": "Random encoder",
    "tesac": "TESAC",
    "ccm": "CCM",
    "satesac": "SaTESAC",
    "saccm": "SaCCM",
    "pearl": "PEARL",
    "sb3": "SB3 SAC",
}
SKILL_NAMES = {
    "push": "Push",
    "pick": "Pick",
    "roll": "Roll",
    "both": "Push or pick",
    "none": "Neither",
}
SPLIT_NAMES = {"train": "Train", "moderate": "Moderate", "extreme": "Extreme"}

# Light shade, dark shade. Contrast with the page is at least 3:1 for each of them.
_METHODS = {
    "sac": ("#1f83f2", "#6d93fa"),
    "oracle": ("#1f2328", "#eef1f4"),
    "random": ("#8b9199", "#7f868f"),
    "tesac": ("#b58a2a", "#f6cf2e"),
    "ccm": ("#27768c", "#1ecea7"),
    "satesac": ("#b51218", "#e04a38"),
    "saccm": ("#46259a", "#6f5fdc"),
    "pearl": ("#3a6349", "#9ab040"),
    "sb3": ("#c04dc8", "#e6b4f7"),
}
_SKILLS = {
    "push": ("#2f5fe0", "#6688f5"),
    "pick": ("#e06a00", "#f09a2e"),
    "roll": ("#8f1f9c", "#e3a6f2"),
    "both": ("#2f6b4a", "#21b183"),
    "none": ("#8b9299", "#626b75"),
}
_SPLITS = {
    "train": ("#3c389e", "#8b84f9"),
    "moderate": ("#2a89a6", "#47d5d0"),
    "extreme": ("#b58d0b", "#faa312"),
}

METHOD_COLORS = {name: shades[0] for name, shades in _METHODS.items()}
METHOD_DASHES = {
    "sac": "solid",
    "oracle": "dash",
    "random": "2px,6px",
    "tesac": "longdash",
    "ccm": "dashdot",
    "satesac": "18px,3px",
    "saccm": "18px,3px,4px,3px",
    "pearl": "longdashdot",
    "sb3": "dot",
}
SKILL_COLORS = {name: shades[0] for name, shades in _SKILLS.items()}
SPLIT_COLORS = {name: shades[0] for name, shades in _SPLITS.items()}
PALETTE = tuple(METHOD_COLORS[m] for m in ("sac", "satesac", "ccm", "tesac", "saccm", "sb3"))
SEQUENTIAL = "Cividis"
DIVERGING = "RdBu"

FONT = "-apple-system, BlinkMacSystemFont, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"
_CONFIG = {
    "displaylogo": False,
    "showSendToCloud": False,
    "modeBarButtonsToRemove": ["autoScale2d", "lasso2d", "select2d", "zoomIn2d", "zoomOut2d"],
}

_VALUE_TITLES = {"episode_return": "return per episode", "success": "success rate"}


_SHADES = dict([*_METHODS.values(), *_SKILLS.values(), *_SPLITS.values()])


def _template(
    palette: Sequence[str], text: str, paper: str, grid: str, line: str, panel: str
) -> go.layout.Template:
    """The house style in one theme's palette, text, background, grid, axis and panel colours."""
    axis = {
        "gridcolor": grid,
        "linecolor": line,
        "tickcolor": line,
        "zeroline": False,
        "showline": True,
        "ticks": "outside",
        "ticklen": 4,
        "automargin": True,
        "title": {"standoff": 10, "font": {"size": 14}},
    }
    bar = {
        "outlinewidth": 0,
        "thickness": 14,
        "ticks": "outside",
        "tickcolor": line,
        "title": {"font": {"size": 14}},
    }
    control = {"bgcolor": panel, "bordercolor": line, "font": {"color": text}}
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 13, "color": text},
            "paper_bgcolor": paper,
            "plot_bgcolor": paper,
            "colorway": list(palette),
            "margin": {"l": 56, "r": 16, "t": 36, "b": 48},
            "hovermode": "closest",
            "hoverlabel": {"bgcolor": panel, "bordercolor": line, "font": {"color": text}},
            "legend": {
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "y": 1.02,
                "yanchor": "bottom",
                "bgcolor": "rgba(0,0,0,0)",
                "itemwidth": 40,
            },
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": line, "activecolor": text},
            "xaxis": axis,
            "yaxis": axis,
            "sliderdefaults": {
                "bgcolor": palette[0],
                "activebgcolor": palette[0],
                "borderwidth": 0,
                "tickcolor": line,
            },
            "updatemenudefaults": control,
        },
        data={"heatmap": [{"colorbar": bar}], "contour": [{"colorbar": bar}]},
    )


TEMPLATES = {
    "sami_light": _template(PALETTE, "#1f2328", "#ffffff", "#e4e7eb", "#818890", "#ffffff"),
    "sami_dark": _template(
        [_SHADES[each] for each in PALETTE], "#ced6dd", "#14181e", "#2c333c", "#828b95", "#222832"
    ),
}
for _name, _each in TEMPLATES.items():
    pio.templates[_name] = _each


def page_style() -> dict[str, Any]:
    """What a page needs to draw the figures in its own theme.

    Returns:
        ``light`` and ``dark``, the two templates, and ``shades``, from each light shade to the dark
        one that replaces it.
    """
    return {
        "light": compact(TEMPLATES["sami_light"].to_plotly_json()),
        "dark": compact(TEMPLATES["sami_dark"].to_plotly_json()),
        "shades": _SHADES,
    }


def translucent(color: str, alpha: float) -> str:
    """A colour ``#rrggbb`` as ``rgba(...)``, for bands and fills.

    Raises:
        ValueError: if ``color`` is not of that form, or ``alpha`` is outside [0, 1].
    """
    if not (len(color) == 7 and color.startswith("#")):
        raise ValueError(f"color is {color!r}; give it as '#rrggbb'")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha!r}; choose a value from 0 to 1")
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


def new_figure(x_title: str, y_title: str, *, height: int = 420) -> go.Figure:
    """An empty figure in the house style; the axis titles carry the units."""
    figure = go.Figure()
    figure.update_layout(
        template="sami_light", height=height, xaxis_title=x_title, yaxis_title=y_title
    )
    return figure


def _runs(table: pd.DataFrame, method: str, x: str, value: str) -> pd.DataFrame:
    """One method's runs: a row per seed, a column per step. ValueError where seeds miss steps."""
    rows = table[table["method"] == method]
    runs = rows.pivot_table(index="seed", columns=x, values=value, aggfunc="mean")
    if runs.isna().to_numpy().any():
        row, column = np.argwhere(runs.isna().to_numpy())[0]
        raise ValueError(
            f"table has no {value} for method {method!r}, seed {runs.index[row]} at {x} "
            f"{runs.columns[column]}, where other seeds have one; give all seeds the same steps"
        )
    return runs


def learning_curves(
    table: pd.DataFrame,
    *,
    value: str = "episode_return",
    split: str | None = None,
    x: str = "env_steps",
    x_title: str = "environment steps",
    y_title: str | None = None,
    methods: Sequence[str] | None = None,
    rng: np.random.Generator | None = None,
    height: int = 420,
) -> go.Figure:
    """Learning curves: the mean over seeds, its 95% bootstrap interval, and every seed.

    Seeds are thin lines that answer to hovering; the legend toggles a method with all it drew.

    Args:
        table: columns ``method``, ``seed``, ``split`` (needed only to choose one), ``x`` and
            ``value``: the form of data/curves. Rows that share method, seed and step are averaged.
        value: the column on the vertical axis.
        split: the task set to draw; not needed if the table holds one.
        x: the column on the horizontal axis.
        x_title, y_title: axis titles with their units; ``y_title`` defaults to the column's.
        methods: which methods, in which order; default: those of the table, in the book's order.
        rng: draws the bootstrap; default: a generator seeded with 0, so that a figure is the same
            whenever it is drawn.
        height: in pixels.

    Raises:
        ValueError: for a missing column, an empty table or split, an unknown method, several splits
            without a choice, or seeds of one method with different steps.
    """
    missing = [name for name in ("method", "seed", x, value) if name not in table.columns]
    if missing:
        raise ValueError(f"table has no column {missing[0]!r}; it has {list(table.columns)}")
    if split is not None:
        if "split" not in table.columns:
            raise ValueError(f"split is {split!r}, but table has no column 'split'")
        table = table[table["split"] == split]
    elif "split" in table.columns and table["split"].nunique() > 1:
        raise ValueError(
            f"split is None, but table holds {sorted(table['split'].unique())}; choose one of them"
        )
    table = table.dropna(subset=[value])
    if table.empty:
        raise ValueError(f"table has no rows with a value for {value!r} (split {split!r})")
    present = set(table["method"])
    if methods is None:
        methods = [m for m in METHOD_NAMES if m in present] + sorted(present - set(METHOD_NAMES))
    for method in methods:
        if method not in METHOD_NAMES or method not in present:
            raise ValueError(
                f"method {method!r} cannot be drawn; the table has {sorted(present)}, and the book "
                f"has colours for {sorted(METHOD_NAMES)}"
            )
    rng = np.random.default_rng(0) if rng is None else rng
    y_title = _VALUE_TITLES.get(value, value.replace("_", " ")) if y_title is None else y_title

    figure = new_figure(x_title, y_title, height=height)
    for method in methods:
        runs = _runs(table, method, x, value)
        steps = runs.columns.to_numpy()
        values = runs.to_numpy(dtype=np.float64)
        name, color = METHOD_NAMES[method], METHOD_COLORS[method]
        for seed, run in zip(runs.index, values, strict=True):
            figure.add_scatter(
                x=steps,
                y=run,
                mode="lines",
                line={"color": translucent(color, 0.35), "width": 1},
                legendgroup=method,
                showlegend=False,
                name=f"{name}, seed {seed}",
                hovertemplate="%{y:.4~g} at %{x:.4~s}",
            )
        if len(values) > 1:
            low, high = interval(values, rng)
            figure.add_scatter(
                x=np.concatenate([steps, steps[::-1]]),
                y=np.concatenate([high, low[::-1]]),
                fill="toself",
                fillcolor=translucent(color, 0.18),
                line={"width": 0},
                mode="lines",
                legendgroup=method,
                showlegend=False,
                hoverinfo="skip",
            )
        figure.add_scatter(
            x=steps,
            y=values.mean(axis=0),
            mode="lines",
            line={"color": color, "width": 2.5, "dash": METHOD_DASHES[method]},
            legendgroup=method,
            name=name,
            hovertemplate=f"%{{y:.4~g}} at %{{x:.4~s}} (mean of {len(values)} seeds)",
        )
    figure.update_xaxes(tickformat="~s")
    if value == "success":
        figure.update_yaxes(range=[-0.02, 1.02], tickformat=".0%")
    return figure


def heatmap(
    values: ArrayLike | Mapping[str, ArrayLike],
    x: Sequence[float],
    y: Sequence[float],
    *,
    value_title: str,
    x_title: str = "friction coefficient",
    y_title: str = "mass (kg)",
    value_range: tuple[float, float] | None = None,
    colorscale: str = SEQUENTIAL,
    number: str = ".2f",
    outlined: Sequence[tuple[float, float]] = (),
    height: int = 420,
) -> go.Figure:
    """A map over two features, by default friction and mass, with one cell per pair of values.

    Cells are drawn equally large, in order: the values of the task sets are not evenly spaced.

    Args:
        values: shape (len(y), len(x)); NaN leaves a cell empty. A mapping from a name to such a map
            draws them on one colour scale, with a menu that chooses.
        x, y: the features' values, in order.
        value_title: what the colour stands for, with its unit; stands beside the scale.
        x_title, y_title: axis titles with units.
        value_range: the ends of the colour scale; default: the smallest and largest value.
        colorscale: ``SEQUENTIAL``, or ``DIVERGING`` for differences (its middle at zero unless
            ``value_range`` says otherwise).
        number: format of the number in each cell (d3), or "" for none.
        outlined: (x, y) pairs whose cells get a frame, e.g. the training tasks.
        height: in pixels.

    Raises:
        ValueError: for shapes that do not fit, no finite value, or an outlined cell not on the map.
    """
    named = values if isinstance(values, Mapping) else {"": values}
    maps = {name: np.asarray(each, dtype=np.float64) for name, each in named.items()}
    if not maps:
        raise ValueError("values is an empty mapping; give at least one map")
    for name, each in maps.items():
        if each.shape != (len(y), len(x)):
            raise ValueError(
                f"values{f'[{name!r}]' if name else ''} has shape {each.shape}; with {len(y)} y "
                f"and {len(x)} x values it must be {(len(y), len(x))}"
            )
    everything = np.concatenate([each.ravel() for each in maps.values()])
    everything = everything[np.isfinite(everything)]
    if not everything.size:
        raise ValueError("values holds no finite number")
    if value_range is not None:
        low, high = value_range
    elif colorscale == DIVERGING:
        high = float(np.abs(everything).max())
        low = -high
    else:
        low, high = float(everything.min()), float(everything.max())

    x_labels, y_labels = [f"{each:g}" for each in x], [f"{each:g}" for each in y]
    figure = new_figure(x_title, y_title, height=height)
    for i, (name, each) in enumerate(maps.items()):
        figure.add_heatmap(
            z=each,
            x=x_labels,
            y=y_labels,
            zmin=low,
            zmax=high,
            colorscale=colorscale,
            colorbar={"title": {"text": value_title, "side": "right"}},
            texttemplate=f"%{{z:{number}}}" if number else None,
            hovertemplate=f"{x_title} %{{x}}<br>{y_title} %{{y}}<br>{value_title} %{{z:.4~g}}"
            "<extra></extra>",
            hoverongaps=False,
            xgap=2,
            ygap=2,
            name=name,
            visible=i == 0,
        )
    figure.update_xaxes(type="category", showgrid=False, showline=False, ticks="")
    figure.update_yaxes(type="category", showgrid=False, showline=False, ticks="")
    for pair in outlined:
        column, row = f"{pair[0]:g}", f"{pair[1]:g}"
        if column not in x_labels or row not in y_labels:
            raise ValueError(f"outlined names the cell {pair}, which is not on the map")
        i, j = x_labels.index(column), y_labels.index(row)
        figure.add_shape(
            type="rect",
            x0=i - 0.47,
            x1=i + 0.47,
            y0=j - 0.46,
            y1=j + 0.46,
            line={"color": METHOD_COLORS["satesac"], "width": 3},
        )
    if len(maps) > 1:
        add_menu(figure, list(maps))
    return figure


def skill_map(
    skills: ArrayLike,
    x: Sequence[float],
    y: Sequence[float],
    *,
    x_title: str = "friction coefficient",
    y_title: str = "mass (kg)",
    height: int = 420,
) -> go.Figure:
    """Which skill is right where: a map of skill names over two features on their true scales.

    Args:
        skills: shape (len(y), len(x)), names from ``SKILL_NAMES``.
        x, y: the features' values, increasing.
        x_title, y_title: axis titles with units.
        height: in pixels.

    Raises:
        ValueError: for a shape that does not fit or a name that is not a skill.
    """
    names = np.asarray(skills, dtype=str)
    if names.shape != (len(y), len(x)):
        raise ValueError(
            f"skills has shape {names.shape}; with {len(y)} y and {len(x)} x values it must be "
            f"{(len(y), len(x))}"
        )
    unknown = sorted(set(names.ravel()) - set(SKILL_NAMES))
    if unknown:
        raise ValueError(f"skills names {unknown[0]!r}; choose from {sorted(SKILL_NAMES)}")
    present = [name for name in SKILL_NAMES if (names == name).any()]
    code = np.zeros(names.shape, dtype=np.int64)
    for i, name in enumerate(present):
        code[names == name] = i
    steps = np.arange(len(present) + 1) / len(present)
    scale = [
        [float(edge), SKILL_COLORS[name]]
        for name, low, high in zip(present, steps[:-1], steps[1:], strict=True)
        for edge in (low, high)
    ]
    figure = new_figure(x_title, y_title, height=height)
    figure.add_heatmap(
        z=code,
        x=list(x),
        y=list(y),
        zmin=-0.5,
        zmax=len(present) - 0.5,
        colorscale=scale,
        showscale=False,
        customdata=np.vectorize(SKILL_NAMES.get, otypes=[object])(names),
        hovertemplate=f"{x_title} %{{x:.3~g}}<br>{y_title} %{{y:.3~g}}<br>%{{customdata}}"
        "<extra></extra>",
    )
    for name in present:
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            marker={"symbol": "square", "size": 12, "color": SKILL_COLORS[name]},
            name=SKILL_NAMES[name],
        )
    figure.update_layout(legend={"itemclick": False, "itemdoubleclick": False})
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=False)
    return figure


def add_slider(figure: go.Figure, labels: Sequence[str], *, prefix: str = "") -> None:
    """A slider that shows one of the figure's frames at a time, named by ``labels``.

    Raises:
        ValueError: if there are not as many labels as frames, or a label occurs twice.
    """
    if len(labels) != len(figure.frames) or len(set(labels)) != len(labels):
        raise ValueError(
            f"labels is {list(labels)}; give {len(figure.frames)} different ones, one per frame"
        )
    for frame, label in zip(figure.frames, labels, strict=True):
        frame.name = label
    at_once = {
        "mode": "immediate",
        "frame": {"duration": 0, "redraw": True},
        "transition": {"duration": 0},
    }
    steps = [{"label": each, "method": "animate", "args": [[each], at_once]} for each in labels]
    figure.update_layout(
        sliders=[
            {
                "steps": steps,
                "currentvalue": {"prefix": prefix, "xanchor": "left"},
                "pad": {"t": 48, "b": 8},
            }
        ]
    )


def add_menu(figure: go.Figure, labels: Sequence[str]) -> None:
    """A menu above the figure that shows one of its traces at a time, named by ``labels``.

    Raises:
        ValueError: if there are not as many labels as traces.
    """
    if len(labels) != len(figure.data):
        raise ValueError(
            f"labels has {len(labels)} entries; the figure has {len(figure.data)} traces"
        )
    buttons = [
        {"label": label, "method": "restyle", "args": ["visible", only.tolist()]}
        for label, only in zip(labels, np.eye(len(labels), dtype=bool), strict=True)
    ]
    figure.update_layout(
        margin={"t": 64},
        updatemenus=[
            {
                "buttons": buttons,
                "showactive": True,
                "x": 0,
                "xanchor": "left",
                "y": 1.02,
                "yanchor": "bottom",
                "pad": {"b": 8},
            }
        ],
    )


class DotFilm(NamedTuple):
    """What stands beside a film that goes with dots of a figure; see :func:`add_films`.

    ``label`` says in a few words what plays, e.g. a task: films of one label in different traces
    are the same thing done by different policies. ``caption`` is a sentence or two.
    """

    label: str
    caption: str


def add_films(figure: go.Figure, films: Mapping[str, DotFilm], *, folder: str, prompt: str) -> None:
    """Films of what a figure's dots stand for; the book's page shows that of a dot pointed at.

    A trace names the film of each of its dots in ``customdata``; a trace without has no films. The
    page keeps room for one film under the figure and loads it when a reader points at a dot, taps
    it, or chooses its label in a menu that lists what is drawn (``thumbnails.js``). In a live
    kernel the figure is shown without films.

    Args:
        figure: its traces are there and hold the names.
        films: by name: the file is ``<folder>/<name>.webp``, its still ``<name>-poster.webp``, both
            of ``sami_tutorial.video.THUMBNAIL_SIZE``.
        folder: relative to the notebook and within the site's static files, e.g.
            "_static/thumbnails".
        prompt: stands in the room of the film as long as none was asked for.

    Raises:
        ValueError: for an empty text, a folder outside _static, a dot with an unknown film, or a
            film that no dot has.
    """
    texts = {"prompt": prompt}
    for name, film in films.items():
        texts |= {f"label of {name}": film.label, f"caption of {name}": film.caption}
    empty = [name for name, text in texts.items() if not text.strip()]
    if empty:
        raise ValueError(f"{empty[0]} is empty; say what is to be read there")
    if not folder.startswith("_static/"):
        raise ValueError(f"folder is {folder!r}; the page finds films below '_static/' only")
    named = {
        str(name) for trace in figure.data if trace.customdata is not None
        for name in trace.customdata
    }  # fmt: skip
    if named != films.keys():
        raise ValueError(
            f"films has no entry for the dots' {sorted(named - films.keys())} and no dot for its "
            f"{sorted(films.keys() - named)}; name in customdata exactly the films that are given"
        )
    entries = {name: film._asdict() for name, film in films.items()}
    figure.update_layout(meta={"films": {"folder": folder, "prompt": prompt, "each": entries}})


def films_of(layout: Mapping[str, Any]) -> dict[str, Any]:
    """What :func:`add_films` left in a figure's layout, or nothing.

    Returns:
        ``folder``, ``prompt``, and ``each``: by name, a film's ``label`` and ``caption``.
    """
    meta = layout.get("meta")
    return meta.get("films", {}) if isinstance(meta, dict) else {}


def compact(value: Any) -> Any:
    """JSON-ready copy of a figure: arrays as lists, five significant digits, NaN as null."""
    if isinstance(value, Mapping):
        if value.keys() >= {"dtype", "bdata"}:  # Plotly's own encoding of an array
            array = np.frombuffer(base64.b64decode(value["bdata"]), dtype=value["dtype"])
            shape = [int(each) for each in str(value.get("shape", array.size)).split(",")]
            return compact(array.reshape(shape))
        return {key: compact(each) for key, each in value.items()}
    if isinstance(value, np.ndarray):
        return compact(value.tolist())
    if isinstance(value, list | tuple):
        return [compact(each) for each in value]
    if isinstance(value, np.generic):
        return compact(value.item())
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() and abs(value) < 1e15 else float(f"{value:.5g}")
    return value


def _require_alt(alt: str) -> str:
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError(f"alt is {alt!r}; say in a sentence what the figure shows")
    return " ".join(alt.split())


def bundle(figure: go.Figure, *, alt: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A figure as Jupyter's display data and metadata, with its text alternative in both.

    Raises:
        ValueError: if ``alt`` is empty.
    """
    alt = _require_alt(alt)
    content = compact(figure.to_plotly_json())
    if "google.colab" in sys.modules:
        data = pio.renderers["colab"].to_mimebundle(content)
    else:
        data = {PLOTLY_MIME: {"config": _CONFIG, **content}}
    return {**data, "text/plain": alt}, {PLOTLY_MIME: {"alt": alt}}


def show(
    figure: go.Figure, *, alt: str, display_id: str | None = None, update: bool = False
) -> None:
    """Displays a figure in a notebook; the book's page draws it without a kernel.

    Args:
        figure: the figure.
        alt: what it shows, in a sentence or two, for readers who do not see it.
        display_id: a name under which the figure can be shown again in place, as training goes on.
        update: replaces the figure that was shown under ``display_id``.

    Raises:
        ValueError: if ``alt`` is empty, or ``update`` is asked for without a ``display_id``.
    """
    from IPython.display import display

    if update and display_id is None:
        raise ValueError("update is True, but display_id is None; name the display to replace")
    data, metadata = bundle(figure, alt=alt)
    # IPython takes display_id=None as "no name" only when it is left out.
    name = {} if display_id is None else {"display_id": display_id, "update": update}
    display(data, metadata=metadata, raw=True, **name)


def video_html(path: str | Path, *, alt: str, caption: str, embed: bool = False) -> str:
    """A film and its poster as HTML; see :func:`show_video`."""
    film = Path(path)
    poster = film.with_name(f"{film.stem}-poster.webp")
    for file in (film, poster):
        if not file.is_file():
            raise ValueError(f"path is {str(path)!r}, but there is no file {file}")
    with Image.open(film) as picture:
        width, height = picture.size

    def address(file: Path) -> str:
        if not embed:
            return html.escape(file.as_posix())
        return f"data:image/webp;base64,{base64.b64encode(file.read_bytes()).decode()}"

    return (
        '<figure class="sami-film"><picture>'
        f'<source srcset="{address(poster)}" media="(prefers-reduced-motion: reduce), print">'
        f'<img src="{address(film)}" width="{width}" height="{height}" loading="lazy" '
        f'alt="{html.escape(_require_alt(alt))}">'
        f"</picture><figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def show_video(path: str | Path, *, alt: str, caption: str) -> None:
    """Displays a film that :func:`sami_tutorial.video.save_video` stored, with a caption.

    Where only the library is installed, the book's films are fetched.

    Args:
        path: the film relative to the notebook, e.g. "_static/videos/hopper.webp"; its poster
            "hopper-poster.webp" lies beside it.
        alt: what happens in the film, for readers who do not see it.
        caption: stands under the film.

    Raises:
        ValueError: if a file is missing or ``alt`` is empty.
        DownloadError: if a film must be fetched and cannot be.
    """
    from IPython.display import display

    film = Path(path)
    if not film.is_file() and (copy := download.cache(f"book/{film.parent.as_posix()}")):
        film = copy / film.name
        for name in (film.name, f"{film.stem}-poster.webp"):
            load_bytes(name, copy)
    # Jupyter serves only what lies beside the notebook, Colab not even that: elsewhere, the film
    # travels inside the output.
    embed = film != Path(path) or "google.colab" in sys.modules
    page = video_html(film, alt=alt, caption=caption, embed=embed)
    display({"text/html": page, "text/plain": _require_alt(alt)}, raw=True)
