// A formula wider than the page scrolls within it, by the keyboard too.
const fit = () => {
  for (const formula of document.querySelectorAll("mjx-container")) {
    const room = formula.closest("p, li, div").clientWidth;
    const wide = formula.querySelector("mjx-math").getBoundingClientRect().width > room;
    formula.classList.toggle("wide", wide);
    formula.tabIndex = wide ? 0 : -1;
  }
};
addEventListener("load", () => window.MathJax?.startup.promise.then(fit));
addEventListener("resize", fit);
