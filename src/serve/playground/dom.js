// Elements of the page. Words go in as text nodes, so that what users and models write can never
// become markup.

export const $ = (id) => document.getElementById(id);

/**
 * An element with properties, such as `className` or `onclick`, and children.
 * @param {string} tag
 * @param {object} properties those with a dash become attributes
 * @param {...(Node|string|null|false)} children
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.flat().filter((child) => child !== null && child !== false));
  return made;
}

/** The bar of a share between 0 and 1; the number stands beside it, so it is mute. */
export function bar(share, className = "") {
  const fill = element("span", { className: "fill" });
  fill.style.setProperty("--share", String(Math.min(1, Math.max(0, share))));
  return element("span", { className: `track ${className}`, "aria-hidden": "true" }, fill);
}

/** Labels in a row. */
export function chips(labels) {
  return element(
    "span",
    { className: "chips" },
    ...labels.map((label) => element("bdi", {}, label)),
  );
}

const PERCENT = new Intl.NumberFormat("en", {
  style: "percent",
  minimumFractionDigits: 1,
  maximumFractionDigits: 1,
});

/** A share as "98.1%"; one that is only rounded to nothing or all says so. */
export function percent(share) {
  if (share > 0 && share < 0.0005) return "<0.1%";
  if (share < 1 && share > 0.9995) return ">99.9%";
  return PERCENT.format(share);
}

/** A count with its noun: "1 text", "1,200 texts". */
export function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}
