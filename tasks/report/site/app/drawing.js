"use strict";
/* Drawings: heat maps over images, histograms of activations, scores on a scale. */
(() => {
  const { h, svg } = Atlas;

  /** Draw a heat map as a canvas of one pixel per patch; the style sheet scales it over the image. */
  Atlas.heatMap = (bytes, rows, columns, what) => {
    const canvas = h("canvas", { class: "heat", width: columns, height: rows, role: "img" });
    const pixels = new ImageData(columns, rows);
    const colors = Atlas.heatColors ||= new Uint8ClampedArray(Atlas.index.heat.flat());
    let strongest = 0;
    for (let at = 0; at < bytes.length; at += 1) {
      pixels.data.set(colors.subarray(bytes[at] * 4, bytes[at] * 4 + 4), at * 4);
      if (bytes[at] > bytes[strongest]) strongest = at;
    }
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    const words = bytes[strongest]
      ? `strongest (${(bytes[strongest] / 25.5).toFixed(1)} of 10) in row ${Math.floor(strongest / columns) + 1}, column ${strongest % columns + 1}`
      : "silent everywhere";
    canvas.setAttribute("aria-label", `${what} over ${rows} by ${columns} patches: ${words}`);
    return { canvas, strongest };
  };

  /** Draw a correlation, its interval and its strongest control on a scale from -1 to 1. */
  Atlas.scoreScale = (score) => {
    const along = (value) => ((Math.min(1, Math.max(-1, value)) + 1) / 2) * 200;
    const parts = [svg("path", { class: "axis", d: "M0 10H200M0 6.5V13.5M100 6.5V13.5M200 6.5V13.5" })];
    let words = `On a scale from \u22121 to 1: score ${Atlas.signed(score.correlation)}`;
    if (Atlas.known(score.ci_low) && Atlas.known(score.ci_high)) {
      const width = Math.max(along(score.ci_high) - along(score.ci_low), 0.5);
      parts.push(svg("rect", { class: "interval", x: along(score.ci_low), y: 7, height: 6, width, rx: 1 }));
      words += `, 95 % interval ${Atlas.signed(score.ci_low)} to ${Atlas.signed(score.ci_high)}`;
    }
    if (score.strongest) {
      const [, control, name] = score.strongest;
      parts.push(svg("path", { class: "control", d: `M${along(control)} 4.8l5.2 5.2-5.2 5.2-5.2-5.2z` }));
      words += `, strongest control ${Atlas.signed(control)}, ${name}`;
    }
    parts.push(svg("circle", { class: "point", cx: along(score.correlation), cy: 10, r: 4.6 }));
    for (const [x, text] of [[0, "\u22121"], [100, "0"], [200, "1"]]) parts.push(svg("text", { x, y: 27 }, text));
    return svg("svg", { class: "scale", viewBox: "-6 0 212 30", role: "img", "aria-label": words }, parts);
  };

  /** Draw histograms of activations by token role, with shares on a logarithmic scale. */
  Atlas.histogram = (details) => {
    const WIDTH = 460, TALL = 70, LEFT = 88, FLOOR = 1e-6;
    const edges = Atlas.index.edges;
    const roles = ["visual", "text"].map((role) => {
      const counts = details.histogram[role];
      return { role, counts, total: counts.reduce((sum, one) => sum + one, 0) };
    }).filter((one) => one.total);
    if (!roles.length) return h("p", { class: "empty" }, "No tokens were counted.");
    const last = Math.max(...roles.map(({ counts }) => counts.findLastIndex((one) => one > 0)), 8);
    const step = (WIDTH - LEFT) / (last + 1);
    const drawn = [];
    roles.forEach(({ role, counts, total }, panel) => {
      const base = (panel + 1) * (TALL + 20) - 8;
      const rise = (share) => (share > 0 ? Math.max(1.5, (1 + Math.log10(Math.max(share, FLOOR)) / 6) * TALL) : 0);
      counts.slice(0, last + 1).forEach((count, bin) => {
        if (!count) return;
        const above = bin ? `from ${Atlas.threeDigits(edges[bin - 1])}` : `below ${Atlas.threeDigits(edges[0])}, silent among them`;
        drawn.push(svg("rect", {
          class: `bar-${role}`, x: LEFT + bin * step + 0.5, width: Math.max(step - 1, 1), y: base - rise(count / total), height: rise(count / total),
        }, svg("title", {}, `${Atlas.count(count)} ${role} tokens ${above}`)));
      });
      drawn.push(svg("path", { class: "axis", d: `M${LEFT} ${base + 0.5}H${WIDTH}` }));
      drawn.push(svg("text", { class: "name", x: 0, y: base - TALL / 2 + 4 }, role));
      for (const [share, text] of [[1, "100 %"], [1e-3, "0.1 %"]]) {
        drawn.push(svg("text", { x: LEFT - 6, y: base - rise(share) + 4, class: "tick" }, text));
      }
    });
    const foot = roles.length * (TALL + 20) - 8;
    drawn.push(svg("text", { class: "under", x: LEFT + step / 2, y: foot + 13 }, `<${Atlas.short(edges[0])}`));
    const stride = Math.max(2, Math.round(last / 12) * 2); // Whole octaves.
    for (let bin = 1 + stride; bin <= last; bin += stride) {
      drawn.push(svg("text", { class: "under", x: LEFT + bin * step, y: foot + 13 }, Atlas.short(edges[bin - 1])));
    }
    const silent = roles.map(({ role, counts, total }) => `${Atlas.percent(counts[0] / total)} of ${role} tokens below ${Atlas.short(edges[0])}`);
    return svg("svg", {
      class: "histogram", viewBox: `0 0 ${WIDTH} ${foot + 18}`, role: "img",
      "aria-label": `Histogram of activations by role: ${silent.join(", ")}; highest ${Atlas.threeDigits(details.scale)}`,
    }, drawn);
  };

  Atlas.short = (value) => (value >= 0.1 ? String(Number(value.toPrecision(2))) : value.toPrecision(1)).replace(/^0\./, ".");
})();
