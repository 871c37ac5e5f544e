// Which cells have the largest and the smallest value of a measure, as buttons that choose them; and which have none.

import { byId, data, element, shown, wordsOf } from "./charts.js";
import { regimeOf } from "./describe.js";
import { titleOf } from "./places.js";
import { valueAt } from "./table.js";

const MOST_ALIKE = 3; // cells that are named where several have the same value

const seedsVary = new Set(data.cells.seed).size > 1;

// The shown cells of the largest and of the smallest value: [word, value, cells].
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
  return ends.map(([word, end]) => [
    word,
    end,
    known.filter(([, value]) => value === end).map(([cell]) => cell),
  ]);
}

function whereOf(cell) {
  const { axes, points } = data;
  const id = data.cells.point[cell];
  return [
    titleOf(points.panel[id]),
    `${axes.x} ${shown(points.x[id])}`,
    `${axes.y} ${shown(points.y[id])}`,
    seedsVary && `seed ${data.cells.seed[cell]}`,
  ]
    .filter(Boolean)
    .join(", ");
}

// A line for each end, with a button for each of its cells, which `choose` is called with.
export function showExtremes(id, kept, measure, step, choose) {
  const lines = extremesOf(kept, measure, step).map(([word, end, cells]) => {
    const buttons = cells.slice(0, MOST_ALIKE).flatMap((cell, place) => {
      const name = data.cells.id[cell];
      const attributes = { type: "button", class: "cell", "data-cell": name, onclick: () => choose(name) };
      return [
        place ? " and " : " ",
        element("button", attributes, whereOf(cell)),
        element("code", {}, ` ${name}`),
      ];
    });
    const more = cells.length - MOST_ALIKE;
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
