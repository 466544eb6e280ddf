"use strict";
/* Format numbers as on the report's page (tasks/report/wording.py). */
(() => {
  const MINUS = "\u2212", MISSING = "\u2013";
  const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);
  const grouped = new Intl.NumberFormat("en-US");

  Atlas.known = known;
  Atlas.signed = (value, digits = 2) => known(value)
    ? (Number(value.toFixed(digits)) + 0).toFixed(digits).replace("-", MINUS) : MISSING;
  Atlas.difference = (value) => (known(value) && Number(value.toFixed(2)) > 0 ? "+" : "") + Atlas.signed(value);
  Atlas.percent = (share) => {
    if (!known(share)) return MISSING;
    return share > 0 && share < 0.005 ? "<1\u00a0%" : `${(share * 100).toFixed(0)}\u00a0%`;
  };
  Atlas.count = (value) => grouped.format(value);
  Atlas.threeDigits = (value) => {
    if (!known(value)) return MISSING;
    const size = Math.abs(value);
    let text;
    if (size >= 1000) text = grouped.format(Math.round(value));
    else if (size > 0 && size < 1e-4) text = value.toExponential(1);
    else text = value.toPrecision(3);
    return text.replace(/-/g, MINUS);
  };
  Atlas.plain = (status) => status.replace(/_/g, " ");
  Atlas.capital = (word) => word.charAt(0).toUpperCase() + word.slice(1);
})();
