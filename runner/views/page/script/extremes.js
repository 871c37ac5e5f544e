// Which cells have the largest and the smallest value of a measure, as buttons that choose them; and which have none.

import { byId, data, element, shown, wordsOf } from "./charts.js";
import { regimeOf } from "./describe.js";
import { titleOf } from "./places.js";
import { valueAt } from "./table.js";

const MOST_ALIKE = 3; // cells that are named where several have the same value
const ROUNDING = 0.01; // by which cells of the same networks may differ and still be said in one breath

const seedsVary = new Set(data.cells.seed).size > 1;

// The shown cells of the largest and of the smallest value: [word, value, places], of each place the cells there.
export function extremesOf(kept, measure, step) {
  if (!Object.hasOwn(data.cells.measures, measure)) return [];
  const known = data.cells.id
    .map((_, cell) => [cell, kept[cell] ? valueAt(data, cell, measure, step) : null])
    .filter(([, value]) => value !== null);
  if (!known.length) return [];
  const values = known.map(([, value]) => value);
  const ends = [
    ["largest", values.reduce((a, b) => Math.max(a, b))],
    ["smallest", values.reduce((a, b) => Math.min(a, b))],
  ];
  return ends.map(([word, end]) => [word, end, placesAt(known, end)]);
}

// The cells at a value by their place; one of the same network, elsewhere by name alone, is at the same place.
function placesAt(known, end) {
  const places = new Map();
  for (const [cell, value] of known) if (value === end) places.set(whereOf(cell), []);
  for (const [cell, value] of known)
    if (Math.abs(value - end) <= ROUNDING * Math.abs(end)) places.get(whereOf(cell))?.push(cell);
  return [...places];
}

// The panel of a cell, with the other names of the same networks.
const panelOf = (cell) =>
  titleOf(data.points.panel[data.cells.point[cell]])
    .split(", ")
    .map((name) => data.same.find((names) => names.includes(name))?.join(" = ") ?? name)
    .join(", ");

function whereOf(cell) {
  const { axes, points } = data;
  const id = data.cells.point[cell];
  return [
    panelOf(cell),
    `${axes.x} ${shown(points.x[id])}`,
    `${axes.y} ${shown(points.y[id])}`,
    seedsVary && `seed ${data.cells.seed[cell]}`,
  ]
    .filter(Boolean)
    .join(", ");
}

// A line for each end, with a button for each of its cells, which `choose` is called with.
export function showExtremes(id, kept, measure, step, choose) {
  const lines = extremesOf(kept, measure, step).map(([word, end, places]) => {
    const buttons = places.slice(0, MOST_ALIKE).flatMap(([where, cells], place) => {
      const names = cells.map((cell) => data.cells.id[cell]);
      const attributes = {
        type: "button",
        class: "cell",
        "data-cell": names[0],
        onclick: () => choose(names[0]),
      };
      return [
        place ? " and " : " ",
        element("button", attributes, where),
        element("code", {}, ` ${names.join(" ")}`),
      ];
    });
    const more = places.length - MOST_ALIKE;
    return element(
      "span",
      { class: "end" },
      `${word} ${wordsOf(measure)}: ${shown(end)},`,
      ...buttons,
      more > 0 ? `, and ${more} more` : "",
    );
  });
  byId(id).replaceChildren(...lines);
  byId(id).hidden = !lines.length;
}

// How many cells have no value, and why: "68 of 360 cells have no dot: 68 diverged."
export function missingWords(missing, all, step, what) {
  if (!missing.length) return "";
  const why = {};
  for (const cell of missing) {
    const regime = regimeOf(cell, step);
    const word = ["diverged", "failed"].includes(regime) ? regime : "not measured";
    why[word] = (why[word] ?? 0) + 1;
  }
  const words = Object.entries(why).map(([word, count]) => `${count} ${word}`);
  return `${missing.length} of ${all} cells have ${what}: ${words.join(", ")}.`;
}
