// What is said of a point, a line, a cell: the tooltip, and the panel beside the diagram.

import { data, element, shown, wordsOf } from "./charts.js";
import { lineWords, linesAt } from "./lines.js";
import { keyOf, letterAt, median, valueAt } from "./table.js";

const TOLD = 3; // measures in a tooltip, those that a reader sees first: the panel has all, and neighbours stay in view

export function placeOf(id) {
  const { axes, points } = data;
  return [
    points.titles[points.panel[id]],
    `${axes.x} ${shown(points.x[id])}`,
    `${axes.y} ${shown(points.y[id])}`,
  ]
    .filter(Boolean)
    .join(", ");
}

export function agreement(point, step) {
  const count = point.cells.length;
  if (!point.regime) return point.failed ? `${point.failed} of ${count} failed` : "no regime";
  if (point.tied) return `tie: ${point.counts.map(([name, own]) => `${own} ${name}`).join(", ")}`;
  const kinds = new Set(
    point.cells.filter((cell) => regimeOf(cell, step) === point.regime).map((cell) => whyOf(cell, step)),
  );
  const why = kinds.size === 1 ? [...kinds][0] : "";
  return `${point.regime}${why} (${point.agree} of ${count} seed${count > 1 ? "s" : ""})`;
}

// Why a cell that ended is untrained: it was never above its start, or it was; empty for other regimes.
function whyOf(cell, step) {
  const peak = data.cells.measures.peak_loss_ratio?.[cell] ?? null;
  if (step !== null || peak === null || regimeOf(cell, step) !== "untrained") return "";
  return peak > data.rose ? ": its loss rose" : ": not yet";
}

// A column in words; its name and meaning where the pointer rests.
const named = (name) =>
  data.words[name] ? element("span", { title: `${name}: ${data.words[name][1]}` }, wordsOf(name)) : name;

// [name, median, smallest and largest] of each measure that is known of some cell.
export function numbersOf(point, step) {
  return Object.keys(data.cells.measures).flatMap((name) => {
    const values = point.cells
      .map((cell) => valueAt(data, cell, name, step))
      .filter((value) => value !== null);
    if (!values.length) return [];
    const range = values.length > 1 ? `${shown(Math.min(...values))} – ${shown(Math.max(...values))}` : "";
    return [[name, shown(median(values)), range]];
  });
}

// The text of a tooltip for `point:ID`, `line:PLACE` or `cell:PLACE`; `safe` escapes.
export function tooltipOf(text, safe, points, state) {
  const [kind, at] = String(text).split(":");
  const rows =
    kind === "point"
      ? pointRows(points[at], state)
      : kind === "line"
        ? lineRows(linesAt(state)[at])
        : cellRows(Number(at), state);
  return `<table>${rows.map(([key, value]) => `<tr><td class="key">${safe(key)}</td><td class="value">${safe(value)}</td></tr>`).join("")}</table>`;
}

function pointRows(point, state) {
  const { axes, points } = data;
  const first = point.cells[0];
  const { step } = state;
  const seeds = point.cells.map(
    (cell) => `seed ${data.cells.seed[cell]}: ${regimeOf(cell, step)}${whyOf(cell, step)}`,
  );
  const names = [state.color, ...data.curves.measures.slice(0, TOLD)];
  const told = numbersOf(point, step).filter(([name]) => names.includes(name));
  return [
    ...axes.facets.map((key) => [key, shown(keyOf(data.cells, key, first))]),
    [axes.x, shown(points.x[point.id])],
    [axes.y, shown(points.y[point.id])],
    ["regime", agreement(point, step)],
    ["seeds", seeds.length > 6 ? `${seeds.length}` : seeds.join("; ")],
    ...told.map(([name, value, range]) => [wordsOf(name), range ? `${value} (${range})` : value]),
  ];
}

function lineRows(line) {
  return [
    [data.axes.x, shown(line.x)],
    [line.words, `${data.axes.y} ${lineWords(line)}`],
    ["interval", line.low === null ? "none: what was measured" : "95 %, of the mean over seeds and the grid"],
    ["measured", bracketWords(line)],
    ["seeds", String(line.seeds)],
  ];
}

function cellRows(cell, state) {
  const keys = Object.keys(data.cells.keys).filter((key) => data.free.includes(key));
  return [
    ["cell", data.cells.id[cell]],
    ...keys.map((key) => [key, shown(keyOf(data.cells, key, cell))]),
    ["regime", `${regimeOf(cell, state.step)}${whyOf(cell, state.step)}`],
    ...data.curves.measures
      .slice(0, TOLD)
      .filter((name) => Object.hasOwn(data.cells.measures, name))
      .map((name) => [wordsOf(name), shown(valueAt(data, cell, name, state.step))]),
  ];
}

export function regimeOf(cell, step) {
  const letter = letterAt(data, cell, step);
  return (
    data.legend.names.find((name) => data.legend.letters[name] === letter) ??
    keyOf(data.cells, "status", cell)
  );
}

// The values of the grid between which a place was seen to lie: at one no seed is so, at the other all are.
function bracketWords({ last, first, upper, seeds }) {
  if (last === null || first === null) return "";
  const [none, all] = upper ? [last, first] : [first, last];
  return `${seeds > 1 ? "no seed" : "not"} at ${shown(none)}, ${seeds > 1 ? "all " : ""}at ${shown(all)}`;
}

// Where regimes and training end at the x of a point, theory's rate and the best one there: [words, number, bracket].
export function boundariesAt(id, state) {
  const { axes, points, theory, best } = data;
  const here = (row) => row.panel === points.panel[id] && row.x === points.x[id];
  const found = linesAt({ ...state, hidden: [] })
    .filter(here)
    .map((line) => [line.words, lineWords(line), bracketWords(line)]);
  theory.panel.forEach((panel, i) => {
    if (here({ panel, x: theory.x[i] })) found.push([theory.words, shown(theory.y[i]), "linearized, at init"]);
  });
  for (const row of best.filter(here)) {
    const interval = row.low === null ? "" : ` [${shown(row.low)}, ${shown(row.high)}]`;
    found.push([
      `best ${axes.y} by ${wordsOf(data.bestBy)}`,
      row.bound ? `${shown(row.best)}: ${row.bound}` : `${shown(row.best)}${interval}`,
      row.last === null || row.first === null ? "" : `between ${shown(row.last)} and ${shown(row.first)}`,
    ]);
  }
  return found;
}

export function tableOf(head, rows) {
  return element(
    "div",
    { class: "scroll" },
    element(
      "table",
      {},
      element("thead", {}, element("tr", {}, ...head.map((name) => element("th", { scope: "col" }, name)))),
      element(
        "tbody",
        {},
        ...rows.map(([first, ...rest]) =>
          element(
            "tr",
            {},
            element("th", { scope: "row" }, named(first)),
            ...rest.map((value) => element("td", {}, value)),
          ),
        ),
      ),
    ),
  );
}

// The keys in which two points differ, and their numbers beside each other.
export function comparison(one, other, step) {
  const keys = Object.keys(data.cells.keys).filter((key) => key !== "seed");
  const [a, b] = [one, other].map((point) => (key) => shown(keyOf(data.cells, key, point.cells[0])));
  const rows = keys.filter((key) => a(key) !== b(key)).map((key) => [key, a(key), b(key)]);
  const numbers = [one, other].map(
    (point) => new Map(numbersOf(point, step).map(([name, ...rest]) => [name, rest])),
  );
  const text = (found) => (found ? (found[1] ? `${found[0]} (${found[1]})` : found[0]) : "–");
  const names = [...new Set([...numbers[0].keys(), ...numbers[1].keys()])];
  return [
    ...rows,
    ["regime", agreement(one, step), agreement(other, step)],
    ...names.map((name) => [name, text(numbers[0].get(name)), text(numbers[1].get(name))]),
  ];
}
