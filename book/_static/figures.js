// Draws the book's Plotly figures: when they come near the screen, in the reader's theme, at the
// width they have. The build puts each figure's JSON into the page (book/_ext/sami_page.py) and the
// templates and colour shades of sami_tutorial.figures into figure-style.js, loaded before this file.
(() => {
  "use strict";

  const here = document.currentScript.src;
  const style = window.samiFigureStyle;
  const drawn = new Set();

  const theme = () => (document.documentElement.dataset.theme === "dark" ? "dark" : "light");

  // Every colour of the palette, as "#rrggbb" or as the start of "rgba(r,g,b,...".
  const channels = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)).join(",");
  const shades = { light: new Map(), dark: new Map() };
  for (const [light, dark] of Object.entries(style.shades)) {
    for (const [to, from, into] of [["dark", light, dark], ["light", dark, light]]) {
      shades[to].set(from, into);
      shades[to].set(`rgba(${channels(from)},`, `rgba(${channels(into)},`);
    }
  }

  function inTheme(figure, name) {
    const text = JSON.stringify(figure).replace(
      /#[0-9a-f]{6}\b|rgba\(\d+,\d+,\d+,/g,
      (color) => shades[name].get(color) ?? color,
    );
    const themed = JSON.parse(text);
    themed.layout.template = style[name];
    return themed;
  }

  // One copy of plotly.js for the page, fetched for its first figure. A page with require.js would
  // have it register as an AMD module instead of window.Plotly, so `define` is hidden meanwhile.
  let library;
  function plotly() {
    library ??= new Promise((resolve, reject) => {
      const define = window.define;
      window.define = undefined;
      const script = document.createElement("script");
      script.src = new URL("plotly.min.js", here);
      script.onload = () => {
        window.define = define;
        resolve(window.Plotly);
      };
      script.onerror = () => {
        window.define = define;
        reject(new Error("plotly.min.js did not load"));
      };
      document.head.append(script);
    });
    return library;
  }

  // Plotly places words without a look at the room there is. On a narrow page the title of an axis
  // can be longer than the figure, a legend can grow into the menu above it, and the last label of a
  // slider can end outside. So words are measured once they are drawn, and given room.
  async function makeRoom(plot) {
    const Plotly = await plotly();
    if (Object.keys(plot.sami.before).length) await Plotly.relayout(plot, plot.sami.before);
    plot.sami.before = {};
    for (const missing of [brokenTitles, raisedMenus, shorterSliders]) {
      const { changes, before } = missing(plot, plot.getBoundingClientRect());
      Object.assign(plot.sami.before, before);
      if (Object.keys(changes).length) await Plotly.relayout(plot, changes);
    }
  }

  function brokenTitles(plot, outer) {
    const changes = {};
    const before = {};
    for (const name of Object.keys(plot.layout).filter((each) => /^[xy]axis\d*$/.test(each))) {
      const { _id: id, title } = plot._fullLayout[name];
      const drawnTitle = plot.querySelector(`.infolayer .${id}title`);
      if (!drawnTitle) continue;
      const box = drawnTitle.getBoundingClientRect();
      const [start, end, low, high] = id.startsWith("x")
        ? [box.left, box.right, outer.left, outer.right]
        : [box.top, box.bottom, outer.top, outer.bottom];
      const middle = (start + end) / 2;
      const room = 2 * Math.min(middle - low, high - middle);
      if (end - start <= room || room <= 0) continue;
      before[`${name}.title.text`] = title.text;
      changes[`${name}.title.text`] = inLines(title.text, Math.ceil((end - start) / room));
    }
    return { changes, before };
  }

  function raisedMenus(plot) {
    const changes = {};
    const before = {};
    const legend = plot.querySelector(".legend .bg")?.getBoundingClientRect();
    plot.querySelectorAll(".updatemenu-header rect").forEach((menu, i) => {
      const box = menu.getBoundingClientRect();
      if (!legend || !overlap(legend, box)) return;
      const pad = plot.layout.updatemenus[i].pad?.b ?? 0;
      before[`updatemenus[${i}].pad.b`] = pad;
      changes[`updatemenus[${i}].pad.b`] = pad + Math.ceil(box.bottom - legend.top) + 6;
    });
    return { changes, before };
  }

  function shorterSliders(plot, outer) {
    const changes = {};
    const before = {};
    plot.querySelectorAll(".slider-group").forEach((slider, i) => {
      const ends = [...slider.querySelectorAll(".slider-label")].map(
        (label) => label.getBoundingClientRect().right,
      );
      const over = Math.max(...ends) - outer.right;
      if (over <= 0) return;
      const pad = plot.layout.sliders[i].pad?.r ?? 0;
      before[`sliders[${i}].pad.r`] = pad;
      changes[`sliders[${i}].pad.r`] = pad + Math.ceil(over) + 4;
    });
    return { changes, before };
  }

  function overlap(a, b) {
    const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    return across > 0 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 0;
  }

  // A text in about as many lines of about one length.
  function inLines(text, count) {
    const lines = [];
    for (const word of text.split(" ")) {
      const last = lines.at(-1);
      const full = !last || last.length + word.length / 2 > text.length / count;
      if (full && lines.length < count) lines.push(word);
      else lines[lines.length - 1] = `${last} ${word}`;
    }
    return lines.join("<br>");
  }

  async function draw(figure) {
    const plot = figure.querySelector(".sami-plot");
    const source = JSON.parse(figure.querySelector("script").textContent);
    const Plotly = await plotly();
    plot.sami = { frames: source.frames, theme: theme(), before: {} };
    const spec = inTheme(source, theme());
    // A finger that moves over a figure scrolls the page instead of zooming the axes.
    if (window.matchMedia("(hover: none)").matches) {
      spec.layout.dragmode = false;
      spec.config.displayModeBar = false;
    }
    await Plotly.newPlot(plot, spec);
    await makeRoom(plot);
    drawn.add(plot);
    figure.dataset.drawn = "";
    figure.dispatchEvent(new CustomEvent("sami-drawn", { bubbles: true }));
    if (plot.sami.theme !== theme()) await retheme(plot);
    let width = plot.clientWidth;
    new ResizeObserver(() => {
      if (plot.clientWidth === width || plot.clientWidth === 0) return;
      width = plot.clientWidth;
      Plotly.Plots.resize(plot).then(() => makeRoom(plot));
    }).observe(plot);
  }

  // What the reader chose (frame, menu entry, zoom, hidden lines) lives in the plot's own data and
  // layout, so those are what is drawn again.
  async function retheme(plot) {
    const Plotly = await plotly();
    const { data, layout } = plot;
    const frames = plot.sami.frames;
    plot.sami.theme = theme();
    await Plotly.react(plot, inTheme({ data, layout, ...(frames && { frames }) }, theme()));
  }

  function start() {
    const nearby = new IntersectionObserver(
      (entries) => {
        for (const { isIntersecting, target } of entries) {
          if (!isIntersecting) continue;
          nearby.unobserve(target);
          draw(target).catch((error) => {
            const text = document.createElement("p");
            text.textContent = target.getAttribute("aria-label");
            target.querySelector(".sami-plot").replaceChildren(text);
            console.error(error);
          });
        }
      },
      { rootMargin: "600px 0px" },
    );
    for (const figure of document.querySelectorAll(".sami-figure")) nearby.observe(figure);
    new MutationObserver(() => {
      for (const plot of drawn) if (plot.sami.theme !== theme()) retheme(plot);
    }).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
