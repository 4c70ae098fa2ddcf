// Gives every film (an animated picture with a poster) a button that pauses and plays it. The poster
// is the picture's <source>: which of the two shows is decided by that source's media query.
// Other scripts give one to a film that comes later with samiFilmButton(source).
(() => {
  "use strict";

  const still = window.matchMedia("(prefers-reduced-motion: reduce)");

  function addButton(source) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sami-film-button";
    let playing = !still.matches;
    const label = () => {
      button.textContent = playing ? "Pause" : "Play";
    };
    button.addEventListener("click", () => {
      playing = !playing;
      source.media = playing ? "print" : "all";
      label();
    });
    label();
    const picture = source.parentElement;
    const frame = document.createElement("div");
    frame.className = "sami-film-frame";
    picture.replaceWith(frame);
    frame.append(picture, button);
  }

  window.samiFilmButton = addButton;

  const start = () =>
    document.querySelectorAll('picture > source[srcset*="-poster."]').forEach(addButton);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
