"use strict";
/* Show the view that the address names, and handle keys. */
(() => {
  const main = document.getElementById("view");
  const button = document.getElementById("heat-switch");
  let keys = {};
  let turn = 0;
  let last = "";

  const show = async () => {
    const mine = ++turn;
    const route = Atlas.route.read();
    if (last === "neurons" && Atlas.leaveTable) Atlas.leaveTable();
    const change = last !== "" && last !== route.view;
    const again = last === route.view;
    last = route.view;
    document.body.dataset.view = route.view;
    button.hidden = route.view !== "neuron";
    const table = document.getElementById("to-table");
    if (route.view === "neurons") table.setAttribute("aria-current", "page"); else table.removeAttribute("aria-current");
    table.href = Atlas.route.toTable(route.state);
    const isCurrent = () => mine === turn;
    const made = await (route.view === "neuron" ? Atlas.showNeuron : Atlas.showTable)(main, route, isCurrent);
    if (!isCurrent()) return;
    keys = made;
    if (route.view === "neuron") {
      window.scrollTo(0, 0);
      if (change || again) document.getElementById("one-title")?.focus({ preventScroll: true });
    } else if (change) made.refocus?.();
  };

  const toggleHeat = () => {
    const bare = document.documentElement.classList.toggle("bare");
    button.setAttribute("aria-pressed", String(!bare));
  };
  button.addEventListener("click", toggleHeat);

  document.addEventListener("keydown", (event) => {
    const field = event.target instanceof Element && event.target.closest("input, textarea, select");
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (field) { if (event.key === "Escape") field.blur(); return; }
    if ((event.key === "h" || event.key === "H") && !button.hidden) return toggleHeat();
    const scrolls = event.target instanceof Element && event.target.closest(".scroller");
    if (keys[event.key] && !(scrolls && event.key.startsWith("Arrow"))) {
      event.preventDefault();
      keys[event.key]();
    }
  });

  Atlas.load("index").then((index) => {
    Atlas.index = index;
    window.addEventListener("hashchange", show);
    return show();
  }).catch((error) => {
    main.replaceChildren(Atlas.h("p", { class: "empty" }, `This atlas cannot be opened: ${error.message}. Is the folder complete?`));
  });
})();
