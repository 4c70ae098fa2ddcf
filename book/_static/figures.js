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

  async function draw(figure) {
    const plot = figure.querySelector(".sami-plot");
    const source = JSON.parse(figure.querySelector("script").textContent);
    const Plotly = await plotly();
    plot.sami = { frames: source.frames, theme: theme() };
    const spec = inTheme(source, theme());
    // A finger that moves over a figure scrolls the page instead of zooming the axes.
    if (window.matchMedia("(hover: none)").matches) {
      spec.layout.dragmode = false;
      spec.config.displayModeBar = false;
    }
    await Plotly.newPlot(plot, spec);
    drawn.add(plot);
    figure.dataset.drawn = "";
    figure.dispatchEvent(new CustomEvent("sami-drawn", { bubbles: true }));
    if (plot.sami.theme !== theme()) await retheme(plot);
    let width = plot.clientWidth;
    new ResizeObserver(() => {
      if (plot.clientWidth === width || plot.clientWidth === 0) return;
      width = plot.clientWidth;
      Plotly.Plots.resize(plot);
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
