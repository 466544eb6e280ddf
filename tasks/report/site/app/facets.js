"use strict";
/* Histograms above the table: the filtered neurons by layer and by score. Dragging over a histogram
   sets its range; the fields below it do the same from the keyboard. */
(() => {
  const { h, svg } = Atlas;
  const WIDTH = 300, TALL = 46, BINS = 40;

  const stacked = (counts, names, whole) => {
    const highest = Math.max(1, ...counts.map((one) => (one || []).reduce((sum, count) => sum + count, 0)));
    const step = WIDTH / counts.length;
    const bars = [];
    counts.forEach((column, at) => {
      if (!column) {
        bars.push(svg("rect", { class: "unread", x: at * step, y: 0.5, width: step, height: TALL - 0.5 }, svg("title", {}, "not searched")));
        return;
      }
      let base = TALL;
      column.forEach((count, code) => {
        if (!count) return;
        const tall = Math.max((count / highest) * (TALL - 2), 0.6);
        base -= tall;
        bars.push(svg("rect", {
          class: `fill-${names[code]}`, x: at * step + (step > 4 ? 0.75 : 0.2), y: base,
          width: Math.max(step - (step > 4 ? 1.5 : 0.4), 0.5), height: tall,
        }));
      });
    });
    if (whole) bars.push(svg("path", { class: "middle", d: `M${WIDTH / 2} 0V${TALL}` }));
    return bars;
  };

  /** Return a histogram. draw(counts, names, range, words) redraws it; null marks unknown counts.
      pick(first, last) is called with the first and last selected column. */
  Atlas.strip = (label, pick, whole = false) => {
    const shade = svg("rect", { class: "shade", y: 0, height: TALL, width: 0 });
    const bars = svg("g");
    const strip = svg("svg", {
      class: "strip", viewBox: `0 0 ${WIDTH} ${TALL}`, preserveAspectRatio: "none", role: "img", "aria-label": label,
    }, shade, bars, svg("path", { class: "axis", d: `M0 ${TALL}H${WIDTH}` }));
    let columns = 1;
    let pressed = null;
    const columnAt = (event) => {
      const box = strip.getBoundingClientRect();
      return Math.min(columns - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * columns)));
    };
    const mark = (first, last) => {
      shade.setAttribute("x", (first / columns) * WIDTH);
      shade.setAttribute("width", ((last + 1 - first) / columns) * WIDTH);
    };
    strip.addEventListener("pointerdown", (event) => {
      pressed = columnAt(event);
      strip.setPointerCapture(event.pointerId);
      mark(pressed, pressed);
    });
    strip.addEventListener("pointermove", (event) => {
      if (pressed !== null) mark(Math.min(pressed, columnAt(event)), Math.max(pressed, columnAt(event)));
    });
    strip.addEventListener("pointerup", (event) => {
      if (pressed === null) return; // Pressed elsewhere, or the browser has cancelled the pointer.
      const now = columnAt(event);
      const [first, last] = [Math.min(pressed, now), Math.max(pressed, now)];
      pressed = null;
      pick(first, last);
    });
    let range = null;
    const markRange = () => { if (range) mark(...range); else shade.setAttribute("width", 0); };
    strip.addEventListener("pointercancel", () => {
      pressed = null;
      markRange();
    });
    strip.draw = (counts, names, drawn, words) => {
      columns = counts.length;
      range = drawn;
      bars.replaceChildren(...stacked(counts, names, whole));
      markRange();
      strip.setAttribute("aria-label", `${label}: ${words}`);
    };
    return strip;
  };

  /** Count rows by layer and type under all filters except the layer filter. Layers whose
      explanations were not searched have null. */
  Atlas.countLayers = (fails, state, unsearched) => {
    const { place, type, tested } = Atlas.columns;
    const kind = state.rule === "tested" ? tested : type;
    const counts = Atlas.index.layers.map(() => new Array(6).fill(0));
    for (let row = 0; row < fails.length; row += 1) {
      if (!(fails[row] & ~Atlas.columns.FAILS.layer)) counts[place[row]][Math.min(kind[row], 5)] += 1;
    }
    return counts.map((column, at) => (unsearched.has(at) ? null : column));
  };

  /** Count rows by score (BINS columns from -1 to 1) and type under all filters except the score filter. */
  Atlas.countScores = (fails, scores, state) => {
    const { type, tested } = Atlas.columns;
    const kind = state.rule === "tested" ? tested : type;
    const counts = Array.from({ length: BINS }, () => new Array(6).fill(0));
    for (let row = 0; row < fails.length; row += 1) {
      const score = scores.correlation[row];
      if (fails[row] & ~Atlas.columns.FAILS.score || Number.isNaN(score)) continue;
      counts[Math.min(BINS - 1, Math.max(0, Math.floor(((score + 1) / 2) * BINS)))][Math.min(kind[row], 5)] += 1;
    }
    return counts;
  };

  Atlas.scoreOfColumn = (column) => Math.round((column / BINS * 2 - 1) * 100) / 100;
  Atlas.columnOfScore = (score) => Math.round(((Math.min(1, Math.max(-1, score)) + 1) / 2) * BINS);

  /** Return a field with its label above it. */
  Atlas.field = (name, ...inside) => h("label", { class: "field" }, h("span", {}, name), ...inside);
})();
