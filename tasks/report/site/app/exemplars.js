"use strict";
/* Samples as figures: the image with the heat map over it, the text with its tokens coloured. */
(() => {
  const { h, foreign } = Atlas;
  const EXCERPT = 44, LONGEST_UNCUT = 66, LONGEST_WORD = 8;

  const bytesOf = (packed) => (packed ? Atlas.bytes(packed) : new Uint8Array(0));

  /** The picture of a sample; without an image, an empty frame of its shape. */
  Atlas.view = (sample, heat, { what = "Heat map", frame = false } = {}) => {
    const [width, height] = sample.size || [1, 1];
    const view = h("div", { class: `view${sample.image ? "" : " gap"}`, vars: { "--ratio": width / height } });
    if (sample.image) {
      view.append(h("img", {
        class: "seen", src: sample.image, width, height, loading: "lazy", decoding: "async",
        alt: `Image of sample ${sample.id}`,
      }));
    }
    const [rows, columns] = sample.grid || [0, 0];
    if (rows && heat.length === rows * columns) {
      const { canvas, strongest } = Atlas.heatMap(heat, rows, columns, what);
      view.append(canvas);
      if (frame) {
        const [across, down] = [100 / columns, 100 / rows];
        view.append(h("span", {
          class: "peak", "aria-hidden": "true",
          vars: {
            left: `${(strongest % columns) * across}%`, top: `${Math.floor(strongest / columns) * down}%`,
            width: `${across}%`, height: `${down}%`,
          },
        }));
      }
    }
    return view;
  };

  /** The tokens of a text, coloured. scale: the activation of the loudest byte, or null where the
      values have no unit. */
  const tokens = (sample, bytes, scale, from, to) => {
    const shown = [];
    for (let place = from; place < to; place += 1) {
      const piece = sample.tokens[place];
      const word = piece.trimStart();
      if (word && word.length < piece.length) shown.push(piece.slice(0, piece.length - word.length));
      // A text that was cut short has tokens that the subject was never shown.
      const loud = place < bytes.length ? bytes[place] : 0;
      const title = place >= bytes.length ? null
        : scale === null ? `${(loud / 25.5).toFixed(1)} of 10` : `${Atlas.digits3((loud / 255) * scale)} (${(loud / 25.5).toFixed(1)} of 10)`;
      shown.push(h("span", { title, vars: loud >= 5 ? { "--a": (loud / 255).toFixed(3) } : {} }, word || piece));
    }
    return shown;
  };

  /** The stretch of a text around its strongest token, beginning with a whole word if it can. */
  const stretch = (sample, bytes) => {
    const count = sample.tokens.length;
    if (count <= LONGEST_UNCUT) return [0, count];
    let strongest = 0;
    for (let place = 0; place < bytes.length; place += 1) if (bytes[place] > bytes[strongest]) strongest = place;
    let start = Math.min(Math.max(strongest - EXCERPT / 2, 0), count - EXCERPT);
    for (let place = start; place > Math.max(-1, start - LONGEST_WORD); place -= 1) {
      if (place === 0 || /^\s/.test(sample.tokens[place])) { start = place; break; }
    }
    return [start, start + EXCERPT];
  };

  const said = (sample, bytes, scale, [from, to], who) => h("p", { class: "said", dir: "auto" },
    who ? h("span", { class: "who-said" }, who) : null,
    from > 0 ? h("span", { class: "quiet" }, "\u2026") : null,
    tokens(sample, bytes, scale, from, to),
    to < sample.tokens.length ? h("span", { class: "quiet" }, " \u2026") : null);

  const label = (number, id, right) => h("p", { class: "label" },
    h("span", {}, h("b", {}, number), " ", foreign("span", { class: "source" }, id)), h("span", { class: "quiet" }, right));

  const problem = (sample) => (sample.problem
    ? h("p", { class: "gap-note" }, h("b", {}, "No image "), foreign("span", {}, sample.problem)) : null);

  const wholeText = (sample, rows, cut) => {
    if (!cut) return null;
    const details = h("details", {}, h("summary", {}, `All ${sample.tokens.length} tokens`));
    details.addEventListener("toggle", () => {
      if (details.open && details.childElementCount === 1) {
        for (const [bytes, scale, who] of rows) details.append(said(sample, bytes, scale, [0, sample.tokens.length], who));
      }
    });
    return details;
  };

  /** Put the figure in place once the sample's file is there. */
  const later = (id, make) => {
    const figure = h("figure", { class: "exemplar waiting" }, h("div", { class: "view", vars: { "--ratio": 1 } }));
    Atlas.loadSample(id).then((sample) => { figure.replaceWith(make({ id: `sample ${id}`, tokens: [], ...sample })); })
      .catch((error) => { figure.replaceChildren(h("p", { class: "gap-note" }, error.message)); });
    return figure;
  };

  /** One exemplar: [sample id, peak, 0 in the image or 1 in the text, heat map, text]. */
  Atlas.exemplar = ([id, peak, role, image, text], rank, scale) => later(id, (sample) => {
    const bytes = bytesOf(text);
    const heat = bytesOf(image);
    const part = stretch(sample, bytes);
    const word = role === 1 ? sample.tokens[bytes.indexOf(Math.max(...bytes))]?.trim() : "";
    const where = role === 0 ? " in the image" : word ? [" at ", foreign("bdi", {}, `\u201c${word}\u201d`)] : " in the text";
    return h("figure", { class: "exemplar" },
      Atlas.view(sample, heat, { frame: role === 0 && peak > 0 }),
      h("figcaption", {}, problem(sample),
        label(rank + 1, sample.id, ["peak ", h("b", {}, Atlas.digits3(peak)), where]),
        sample.tokens.length ? said(sample, bytes, scale, part) : null,
        wholeText(sample, [[bytes, scale]], part[1] - part[0] < sample.tokens.length)));
  });

  /** A weaker exemplar, small: its image, peak and nothing else. */
  Atlas.thumbnail = ([id, peak, role], rank) => later(id, (sample) => h("figure", { class: "exemplar small" },
    Atlas.view(sample, new Uint8Array(0)),
    h("figcaption", {}, problem(sample),
      label(rank + 1, "", `${Atlas.digits3(peak)} ${role === 0 ? "image" : "text"}`))));

  /** Real beside simulated activation on one sample that the explainer never saw. */
  Atlas.besideSimulated = ([id, draw, realImage, realText, peak], simulated, scale) => later(id, (sample) => {
    const [real, text] = [bytesOf(realImage), bytesOf(realText)];
    const [predicted, predictedText] = simulated ? [bytesOf(simulated[0]), bytesOf(simulated[1])] : [new Uint8Array(0), new Uint8Array(0)];
    const both = text.map((byte, place) => Math.max(byte, predictedText[place] || 0));
    const part = stretch(sample, both);
    const cut = part[1] - part[0] < sample.tokens.length;
    const why = draw === "exemplar" ? "an exemplar held out" : "drawn at random";
    return h("figure", { class: "exemplar pair" },
      sample.grid || sample.problem ? h("div", { class: "sides" },
        h("div", {}, h("p", { class: "side" }, "Real"), Atlas.view(sample, real, { what: "Real activation" })),
        h("div", {}, h("p", { class: "side" }, "Simulated"), Atlas.view(sample, predicted, { what: "Simulated activation" }))) : null,
      h("figcaption", {}, problem(sample),
        label(why === "drawn at random" ? "Random" : "Exemplar", sample.id,
          [`r `, h("b", {}, Atlas.signed(simulated?.[2])), `, peak ${Atlas.digits3(peak)}`]),
        sample.tokens.length ? h("div", { class: "rows" },
          said(sample, text, scale, part, "real"), said(sample, predictedText, null, part, "simulated")) : null,
        wholeText(sample, [[text, scale, "real"], [predictedText, null, "simulated"]], cut)));
  });
})();
