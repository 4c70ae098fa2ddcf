// Shows the films of a figure's dots in the room that the build leaves under the figure: the film of
// the dot that is pointed at or tapped, or of the task that is chosen in a list, which is the way for
// a keyboard. A dot names its film in its trace's customdata, the layout's meta.films says what to
// write beside each (sami_tutorial.figures.add_films). No film is fetched before it is asked for.
(() => {
  "use strict";

  const here = document.currentScript.src;
  let rooms = 0;

  function element(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  // An empty film with its button, and the list and the words beside it.
  function furnish(room) {
    const source = element("source", { media: "(prefers-reduced-motion: reduce), print" });
    const image = element("img", { alt: "" });
    const screen = element("div", { className: "sami-thumbnail-screen" });
    const list = element("select", { id: `sami-thumbnail-${++rooms}` });
    const label = element("label", { htmlFor: list.id, textContent: "Film of " });
    const words = room.querySelector("p");
    words.setAttribute("aria-live", "polite");
    screen.append(element("picture", {}, source, image));
    room.append(screen, element("div", {}, element("div", {}, label, list), words));
    window.samiFilmButton(source);
    image.addEventListener("load", () => screen.classList.add("sami-loaded"));
    return { source, image, screen, list, words };
  }

  function start({ target: figure }) {
    const room = figure.nextElementSibling;
    if (!room?.matches(".sami-thumbnail")) return;
    const plot = figure.querySelector(".sami-plot");
    const { folder, prompt, each: films } = plot.layout.meta.films;
    const { source, image, screen, list, words } = furnish(room);
    const address = (name, ending) =>
      new URL(`${folder.replace("_static/", "")}/${name}${ending}`, here).href;
    let shown = "";

    function show(name = "") {
      list.value = name;
      if (name === shown) return;
      shown = name;
      screen.classList.remove("sami-loaded");
      if (name in films) {
        words.textContent = films[name].caption;
        image.alt = `Film: ${films[name].label}`;
        source.srcset = address(name, "-poster.webp");
        image.src = address(name, ".webp");
      } else {
        words.textContent = prompt;
      }
    }

    // The films of what is drawn now. If another policy's dots are, the task stays.
    function refill() {
      const drawn = new Set();
      for (const { visible = true, customdata } of plot.data)
        if (visible === true) for (const name of customdata ?? []) drawn.add(name);
      const options = Object.keys(films)
        .filter((name) => drawn.has(name))
        .map((name) => element("option", { value: name, textContent: films[name].label }));
      list.replaceChildren(element("option", { value: "", textContent: "choose one" }), ...options);
      list.disabled = options.length === 0;
      const label = films[shown]?.label;
      show(options.find((option) => option.textContent === label)?.value);
    }

    const point = ({ points }) => {
      if (points[0].customdata in films) show(points[0].customdata);
    };
    plot.on("plotly_hover", point);
    plot.on("plotly_click", point);
    plot.on("plotly_restyle", refill);
    list.addEventListener("change", () => show(list.value));
    refill();
  }

  document.addEventListener("sami-drawn", start);
})();
