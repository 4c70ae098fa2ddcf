// Lets the keyboard reach what is wider than its column and scrolls by itself: long formulas, tables
// and lines of code.
(() => {
  "use strict";

  const wide =
    "mjx-container, .pst-scrollable-table-container, .bd-article table, .bd-article pre, .cell_output";

  function mark() {
    for (const each of document.querySelectorAll(wide)) {
      const scrolls =
        each.scrollWidth > each.clientWidth &&
        ["auto", "scroll"].includes(getComputedStyle(each).overflowX);
      if (scrolls) each.tabIndex = 0;
      else each.removeAttribute("tabindex");
    }
  }

  async function start() {
    await window.MathJax?.startup?.promise;
    new ResizeObserver(mark).observe(document.querySelector(".bd-article") ?? document.body);
  }

  window.addEventListener("load", start);
})();
