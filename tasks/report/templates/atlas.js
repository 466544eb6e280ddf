"use strict";
(() => {
  const button = document.getElementById("heat-switch");
  const toggle = () => {
    const bare = document.documentElement.classList.toggle("bare");
    button.setAttribute("aria-pressed", String(!bare));
  };
  button.addEventListener("click", toggle);
  document.addEventListener("keydown", (event) => {
    const typing = event.target instanceof Element && event.target.closest("input, textarea, select");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.key === "h" || event.key === "H") toggle();
  });
})();
