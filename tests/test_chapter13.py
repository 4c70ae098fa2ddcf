"""Chapter 13 builds silhouette and adjusted mutual information by hand; its data say what it says.

The chapter's sentences about CubeMove are claims about ``results/embeddings_cubemove.parquet``.
Each stands here as a condition, so that new data under an old sentence show. Those about the robots
are written by the chapter's own code.
"""

import io
import json
from collections import Counter
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from notebook_cells import tagged_cells
from PIL import Image
from sklearn.metrics import adjusted_mutual_info_score, mutual_info_score, silhouette_score
from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

from sami_tutorial import figures
from sami_tutorial.embeddings import cluster_agreement, islands
from sami_tutorial.envs import make_vec, task_sets
from sami_tutorial.evaluate import EVALUATION_SEED, interval
from sami_tutorial.results import load_bytes, load_table, provenance
from sami_tutorial.video import THUMBNAIL_SIZE, film_name

CUBE = "sami/CubeMove-v0"
FOUR = ("tesac", "ccm", "satesac", "saccm")
END = 40


@pytest.fixture(scope="module")
def chapter():
    from math import exp, lgamma, log, sqrt

    names = {"Counter": Counter, "exp": exp, "lgamma": lgamma, "log": log, "sqrt": sqrt}
    cells = tagged_cells("13_what_the_embedding_knows", "from-scratch")
    cells["silhouette_by_hand"].__globals__.update(names)
    return cells


@pytest.mark.parametrize("groups", [2, 3, 7])
def test_silhouette_by_hand_is_the_librarys(chapter, groups):
    rng = np.random.default_rng(groups)
    x, y = rng.normal(size=(60, 4)), rng.integers(groups, size=60)
    x[:, 0] += 2 * y
    assert chapter["silhouette_by_hand"](x, y) == pytest.approx(silhouette_score(x, y), abs=1e-12)
    y[0] = 99  # a point alone counts as 0
    assert chapter["silhouette_by_hand"](x, y) == pytest.approx(silhouette_score(x, y), abs=1e-12)


@pytest.mark.parametrize("sizes", [(2, 2), (5, 2), (40, 3)])
def test_adjusted_mutual_information_by_hand_is_the_librarys(chapter, sizes):
    rng = np.random.default_rng(sum(sizes))
    u, v = (rng.integers(k, size=120) for k in sizes)
    u[:50] = v[:50] % sizes[0]  # some agreement
    table = contingency_matrix(u, v)
    by_chance = chapter["expected_information"](
        list(Counter(u).values()), list(Counter(v).values())
    )
    assert by_chance == pytest.approx(expected_mutual_information(table, 120), rel=1e-9)
    ours = chapter["mutual_information"](u.tolist(), v.tolist())
    assert ours == pytest.approx(mutual_info_score(u, v), abs=1e-12)
    ours = chapter["adjusted_information"](u.tolist(), v.tolist())
    assert ours == pytest.approx(adjusted_mutual_info_score(v, u), abs=1e-9)


# ---------------------------------------------------------------------- what the chapter says


@pytest.fixture(scope="module")
def numbers():
    table = load_table("results/embeddings_cubemove.parquet")
    keys = ["measure", "method", "source", "step", "group"]
    return table.set_index([*keys, "seed"])["value"].sort_index()


@pytest.fixture(scope="module")
def value(numbers):
    def get(measure, method, source="c", step=END, group="all"):
        """One value per seed, in the seeds' order."""
        return numbers.loc[(measure, method, source, step, group)].to_numpy()

    return get


@pytest.fixture(scope="module")
def pictured():
    return load_table("embeddings/cubemove.parquet")


def clearly(a, b=0.0):
    """Whether the paired differences are above zero in their 95% interval."""
    return interval(np.asarray(a) - b, np.random.default_rng(0))[0] > 0


def test_every_seed_of_every_method_is_there(value, pictured):
    for method in (*FOUR, "random", "satesac_shuffled"):
        assert len(value("skill wanted", method)) == 10
    assert (pictured.groupby(["method", "context"]).size() == 100).all()
    assert pictured["context"].nunique() == 33


def test_the_loudest_direction_is_the_side_of_the_goal_but_for_one_policy(pictured, value):
    start, _ = make_vec(CUBE, 10).reset(
        seed=EVALUATION_SEED, options={"context": task_sets(CUBE).train[0]}
    )
    few = pictured[(pictured["episode"] < 10) & (pictured["skill"] != "none")]
    for method, rows in few.groupby("method"):
        c = rows.filter(regex=r"^c_\d").to_numpy()
        side = cluster_agreement(c, start[rows["episode"], 0] > 0, seed=0, clusters=2)
        skill = cluster_agreement(c, rows["skill"], seed=0, clusters=2)
        assert (side < 0.1 and skill > 0.4) if method == "ccm" else (side > 0.95 and skill < 0.1)
    first, *others = value("clusters and skill used", "ccm")
    assert first > 0.5 and max(others) < 0.3 and np.median(others) < 0.05


@pytest.mark.parametrize("method", FOUR)
def test_every_island_lies_on_one_side_and_most_have_one_skill(pictured, method):
    start, _ = make_vec(CUBE, 10).reset(
        seed=EVALUATION_SEED, options={"context": task_sets(CUBE).train[0]}
    )
    rows = pictured[(pictured["method"] == method) & pictured["umap_0_x"].notna()]
    island = islands(rows[["umap_0_x", "umap_0_y"]], smallest=max(5, len(rows) // 50))
    label = pd.DataFrame({"side": start[rows["episode"], 0] > 0, "skill": rows["skill"].to_numpy()})
    found = label[island >= 0].groupby(island[island >= 0])
    assert (found["side"].nunique() == 1).all()
    one_skill = found["skill"].agg(lambda each: each.value_counts(normalize=True).iloc[0] > 0.9)
    assert 0.5 < one_skill.mean() < 1


@pytest.mark.parametrize("method", FOUR)
def test_geometry_shows_neither_skills_nor_tasks(value, method):
    assert value("silhouette, skill used", method).mean() < 0.2
    assert value("clusters and skill used", method).mean() < 0.15
    assert value("silhouette, task", method).mean() < 0
    assert value("clusters and task", method).mean() < 0.15


@pytest.mark.parametrize("method", [*FOUR, "satesac_shuffled"])
def test_training_draws_a_skill_together_also_with_shuffled_returns(value, method):
    silhouettes = (value("silhouette, skill used", method, s) for s in ("c", "untrained"))
    assert clearly(*silhouettes)


@pytest.mark.parametrize("method", FOUR)
def test_islands_are_many_are_no_skills_and_keep_their_contents(numbers, method):
    def pictures(measure, source):
        rows = numbers.xs((measure, method, source, END), level=(0, 1, 2, 3)).xs(0, level="seed")
        return rows[rows.index.str.startswith(("picture ", "umap_"))].to_numpy()

    assert 12 < pictures("islands", "umap").mean() < 45
    assert pictures("islands", "gaussian").mean() > 2
    assert pictures("islands and skill used", "umap").max() < 0.5
    between = pictures("islands of two pictures", "umap")
    assert len(between) == 10 and between.mean() > 0.6


def test_training_leaves_a_mark_at_the_end(value):
    for method in FOUR:
        for source in ("c", "s", "untrained"):
            assert value("skill wanted", method, source).mean() > 0.65
            assert value("skill used", method, source).mean() > 0.6
    for method in ("tesac", "ccm", "saccm"):
        for baseline in ("s", "untrained"):
            at_end = value("skill wanted", method), value("skill wanted", method, baseline)
            assert clearly(*at_end)
    for baseline in ("s", "untrained"):
        pair = value("skill wanted", "satesac"), value("skill wanted", "satesac", baseline)
        assert not clearly(*pair)
    gap = value("skill wanted", "random").mean() - value("skill wanted", "ccm").mean()
    assert abs(gap) < 0.02


def test_pushing_in_vain_explains_a_part_of_what_the_random_encoder_shows(value):
    def in_all_and_solved(source):
        return (value("skill wanted", "random", source, group=g) for g in ("all", "solved"))

    assert clearly(*in_all_and_solved("s"))  # the body tells less where nobody pushes in vain
    assert not clearly(*in_all_and_solved("c"))
    assert value("skill wanted", "random", group="solved").mean() > 0.85


@pytest.mark.parametrize("method", FOUR)
def test_no_line_names_the_task_or_reads_mass_and_friction(value, method):
    assert value("task", method).mean() < 0.15  # the class alone: 1/11
    for feature in ("log mass", "log friction"):
        assert value(f"R², {feature}, within class", method).mean() < 0


@pytest.mark.parametrize("method", FOUR)
def test_the_body_knows_during_the_trial_and_only_memory_behind_the_curtain(value, method):
    assert np.allclose(value("skill wanted", method, "s", 0), 0.5)
    for step in (6, 8, 12):
        assert value("skill wanted", method, "s", step).mean() > 0.97
    for other in ("s", "untrained"):
        pair = (value("skill wanted", method, source, 8) for source in (other, "c"))
        assert clearly(*pair)
    assert np.allclose(value("skill wanted, two trials", method, "s", 40), 0.5)
    behind = {s: value("skill wanted, two trials", method, s, 40) for s in ("c", "untrained")}
    assert 0.75 <= behind["c"].mean() <= 0.85  # about four of five
    assert behind["untrained"].mean() - 0.5 > (behind["c"].mean() - 0.5) / 2  # most of it
    assert clearly(behind["c"], 0.5) and clearly(behind["untrained"], 0.5)
    assert clearly(behind["c"], behind["untrained"]) == (method == "saccm")
    assert not clearly(behind["untrained"], behind["c"])


def test_saccms_lead_over_fresh_weights_is_not_told_apart_from_the_others(value):
    def lead(method):
        c, untrained = (
            value("skill wanted, two trials", method, s, 40) for s in ("c", "untrained")
        )
        return c - untrained

    for other in ("tesac", "ccm"):
        assert not clearly(lead("saccm"), lead(other))
    c = {m: value("skill wanted, two trials", m, step=40).mean() for m in ("saccm", "ccm")}
    assert c["saccm"] <= c["ccm"]


@pytest.mark.parametrize(
    ("method", "other"),
    [(m, o) for m in ("satesac", "saccm") for o in ("tesac", "ccm")]
    + [("satesac", "satesac_shuffled")],
)
def test_no_number_singles_the_skill_aware_methods_out(value, method, other):
    for measure, step in (
        ("skill wanted", END),
        ("skill wanted, two trials", 40),
        ("silhouette, skill used", END),
    ):
        assert not clearly(value(measure, method, step=step), value(measure, other, step=step))


@pytest.mark.parametrize("method", FOUR)
def test_the_embedding_follows_the_body(value, method):
    settled = {s: value("settled after", method, s).mean() for s in ("c", "s")}
    assert END / 2 < settled["c"] < settled["s"]
    assert (settled["s"] - settled["c"] > 5) == (method == "tesac")
    told = {t: value("told by s", method, "c", t).mean() for t in (8, END)}
    assert told[END] >= 0.795 and told[8] < 0.67
    assert value("told by s", "random", "c", 8).mean() > 0.9


@pytest.fixture(scope="module")
def of_half_cheetah():
    table = load_table("results/embeddings_crippledhalfcheetah.parquet")
    keys = ["measure", "method", "source", "step", "group"]
    rows = table.set_index([*keys, "seed"])["value"].sort_index()

    def get(measure, method, source, group="all"):
        return rows.loc[(measure, method, source, 1000, group)].to_numpy()

    return get


def test_the_half_cheetahs_embedding_holds_still_and_satesacs_names_the_task_better(
    of_half_cheetah,
):
    get = of_half_cheetah
    for method in FOUR:
        between = [get("share of variance", method, s, "between tasks") for s in ("c", "untrained")]
        assert clearly(*between) and between[0].mean() > 0.5 > 0.3 > between[1].mean()
    assert clearly(get("task", "satesac", "c"), get("task", "tesac", "c"))
    assert not clearly(get("task", "saccm", "c"), get("task", "ccm", "c"))


def test_fresh_weights_too_name_the_task_better_on_satesacs_episodes(of_half_cheetah):
    def pair(source):
        return (of_half_cheetah("task", method, source) for method in ("satesac", "tesac"))

    assert clearly(*pair("untrained"))
    assert not clearly(*pair("s"))


@pytest.mark.parametrize("method", FOUR)
def test_averaged_over_some_steps_fresh_weights_name_the_task_better(of_half_cheetah, method):
    trained, fresh = (of_half_cheetah("task", method, s, "mean") for s in ("c", "untrained"))
    assert (fresh > trained).all()
    assert clearly(fresh, trained)


def test_the_quiz_asks_for_as_much_information_as_chance_gives(chapter):
    expected = chapter["expected_information"]([10] * 60, [300, 300])
    assert expected == pytest.approx(0.05, abs=0.005)
    ceiling = (np.log(60) + np.log(2)) / 2
    assert round((0.05 - expected) / (ceiling - expected), 2) == 0


def test_on_the_hopper_satesac_has_no_such_lead():
    table = load_table("results/embeddings_crippledhopper.parquet")
    last = table[(table["measure"] == "task") & (table["source"] == "c") & (table["step"] == 1000)]
    last = last[last["group"] == "all"].pivot_table(index="seed", columns="method", values="value")
    assert not clearly(last["satesac"], last["tesac"])


@pytest.mark.parametrize("name", ["crippledhalfcheetah", "crippledhopper"])
def test_a_robots_parts_of_the_variance_are_its_whole(name):
    table = load_table(f"results/embeddings_{name}.parquet")
    share = table[table["measure"] == "share of variance"]
    total = share.groupby(["method", "seed", "source"])["value"].sum()
    assert np.allclose(total, 1, atol=0.01)


# ---------------------------------------------------------------------- films of the half-cheetah


BOOK = Path(__file__).parents[1] / "book"


@pytest.fixture(scope="module")
def walks():
    """The drawn episodes of the half-cheetah, each with the film of its method and task."""
    table = load_table("embeddings/crippledhalfcheetah.parquet")
    contexts = table["context"].map(json.loads)
    films = [
        film_name(f"crippledhalfcheetah_{method}", context)
        for method, context in zip(table["method"], contexts, strict=True)
    ]
    return table.assign(film=films, features=contexts)


@pytest.fixture(scope="module")
def drawn():
    """The stored figure whose dots have films."""
    notebook = nbformat.read(BOOK / "13_what_the_embedding_knows.ipynb", as_version=4)
    plots = (
        output["data"][figures.PLOTLY_MIME]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if figures.PLOTLY_MIME in output.get("data", {})
    )
    (found,) = (plot for plot in plots if figures.films_of(plot["layout"]))
    return found


def test_every_dot_has_the_film_of_its_method_and_task(walks, drawn):
    def place(x, y, film):
        return f"{x:.5g}", f"{y:.5g}", film

    dots = Counter(
        place(*dot)
        for trace in drawn["data"]
        if "customdata" in trace
        for dot in zip(trace["x"], trace["y"], trace["customdata"], strict=True)
    )
    assert dots == Counter(map(place, walks["umap_x"], walks["umap_y"], walks["film"]))


def test_each_film_shows_the_first_episode_of_a_task_and_says_so(walks, drawn):
    films = figures.films_of(drawn["layout"])
    folder = BOOK / films["folder"]
    first = walks[walks["episode"] == 0]
    assert set(first["film"]) == films["each"].keys() and len(first) == 60
    at_rest = 0
    for row in first.itertuples():
        made = provenance(f"{row.film}.webp", folder)["config"]
        assert made["checkpoint"].endswith(f"/{row.method}/seed{row.seed}.safetensors")
        assert made["context"] == row.features
        assert made["episode_seed"] == EVALUATION_SEED
        assert made["episode_return"] == row.episode_return
        caption = films["each"][row.film]["caption"]
        policy = f"{figures.METHOD_NAMES[row.method]}, seed {row.seed}"
        assert caption.endswith(f"{policy}, return {row.episode_return:.0f}.")
        film, poster = (
            Image.open(io.BytesIO(load_bytes(row.film + ending, folder)))
            for ending in (".webp", "-poster.webp")
        )
        assert film.size == poster.size == THUMBNAIL_SIZE
        assert film.n_frames in (1, made["pictures"])
        at_rest += film.n_frames == 1
    assert at_rest > 0  # the text says that some have come to rest
