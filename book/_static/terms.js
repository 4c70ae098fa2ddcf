// The Escape key puts away the definition that is shown over a link to the glossary (custom.css
// shows it), until the pointer or the focus leaves the link.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const term of document.querySelectorAll(".sami-term:is(:hover, :focus-within)")) {
    term.classList.add("sami-quiet");
    for (const leave of ["pointerleave", "focusout"]) {
      term.addEventListener(leave, () => term.classList.remove("sami-quiet"), { once: true });
    }
  }
});
