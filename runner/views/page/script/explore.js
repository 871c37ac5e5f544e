// Single cells: any two numbers, parallel coordinates, and the brush that all charts share.

import { byId, clone, data, draw, shown, views, wordsOf } from "./charts.js";
import { regimeOf } from "./describe.js";
import { missingWords } from "./extremes.js";
import { titleOf } from "./places.js";
import { keyOf, valueAt } from "./table.js";

const MOST_LINES = 1500; // of parallel coordinates
const MOST_AXES = 9;
const AXIS_ROOM = 64; // pixels of an axis with its names; where there are fewer the chart scrolls
const FADED = 0.06;
const RESTS_MS = 120; // a brush is followed when the hand rests

const isNumeric = (key) => data.cells.keys[key].values.every((value) => typeof value === "number");

export function numberNames() {
  const keys = Object.keys(data.cells.keys).filter((key) => data.free.includes(key) && isNumeric(key));
  return [...keys, ...Object.keys(data.cells.measures)];
}

export const numberOf = (cell, name, step) =>
  Object.hasOwn(data.cells.keys, name) ? keyOf(data.cells, name, cell) : valueAt(data, cell, name, step);

export function scatterAxes(state) {
  const names = numberNames();
  const measures = Object.keys(data.cells.measures);
  const first = measures.includes("ntk_change") ? "ntk_change" : measures[0];
  const has = (name) => (names.includes(name) ? name : null);
  return {
    a:
      has(state.a) ??
      names[names.length > measures.length ? Math.min(1, names.length - measures.length - 1) : 0],
    b: has(state.b) ?? first ?? names[0],
  };
}

// -- the brush: {on, x, y}, of the diagram with its panel; which cells it holds -----------------------------------

const within = (value, [from, to]) =>
  value !== null && value >= Math.min(from, to) && value <= Math.max(from, to);

export function brushedCells(state, kept) {
  const { brush } = state;
  if (!brush) return null;
  const holds = {
    diagram: (cell) => {
      const id = data.cells.point[cell];
      return (
        (brush.panel === undefined || data.points.titles[data.points.panel[id]] === brush.panel) &&
        within(data.points.x[id], brush.x) &&
        within(data.points.y[id], brush.y)
      );
    },
    scatter: (cell) => {
      const { a, b } = scatterAxes(state);
      return within(numberOf(cell, a, state.step), brush.x) && within(numberOf(cell, b, state.step), brush.y);
    },
    parallel: (cell) =>
      brush.x.some((name) => axisOf(name, state) && within(axisOf(name, state).place(cell), brush.y)),
  }[brush.on];
  return holds ? new Set(kept.flatMap((is, cell) => (is && holds(cell) ? [cell] : []))) : null;
}

// Calls with a brush when the reader has drawn one, with null when it was taken away. The store is what a brush in
// a panel of a facet has in common with one elsewhere.
export function onBrush(id, changed) {
  let timer;
  views[id].view.addDataListener("brush_store", (_, tuples) => {
    clearTimeout(timer);
    timer = setTimeout(() => changed(brushOf(id, tuples[0])), RESTS_MS);
  });
}

function brushOf(id, tuple) {
  const [x, y] = tuple?.values ?? [];
  if (!x?.length || !y?.length) return null;
  const panel = data.points.titles.find((title) => title && tuple.unit.endsWith(`__facet_facet_${title}`));
  const short = (values) =>
    values.map((value) => (typeof value === "number" ? Number(value.toPrecision(4)) : value));
  return { on: id, ...(id === "diagram" && panel && { panel }), x: short(x), y: short(y) };
}

// -- parallel coordinates ----------------------------------------------------------------------------------------

let known = {};

// A key or measure as an axis: where a cell lies on it in [0, 1], and what its ends are called.
function axisOf(name, state) {
  const at = `${name} ${state.step}`;
  return (known[at] ??= makeAxis(name, state.step));
}

function makeAxis(name, step) {
  if (Object.hasOwn(data.cells.keys, name) && !isNumeric(name)) {
    const { values, at } = data.cells.keys[name];
    const last = Math.max(1, values.length - 1);
    return {
      name,
      place: (cell) => at[cell] / last,
      ticks: values.map((value, i) => [i / last, shown(value)]),
    };
  }
  const values = data.cells.id.map((_, cell) => numberOf(cell, name, step)).filter((value) => value !== null);
  const low = Math.min(...values),
    high = Math.max(...values);
  if (!(high > low)) return null;
  const log = low > 0 && high > 10 * low;
  const to = (value) => (log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low));
  return {
    name,
    log,
    place: (cell) => {
      const value = numberOf(cell, name, step);
      return value === null ? null : to(value);
    },
    ticks: [
      [0, shown(low)],
      [1, shown(high)],
    ],
  };
}

function axesShown(state) {
  const keys = Object.keys(data.cells.keys).filter((key) => data.free.includes(key) && key !== "seed");
  const measures = Object.keys(data.cells.measures);
  const first = ["train_loss", "test_loss", "ntk_change", "feature_movement"].filter((name) =>
    measures.includes(name),
  );
  return [...keys, ...first, ...measures.filter((name) => !first.includes(name))]
    .map((name) => axisOf(name, state))
    .filter(Boolean)
    .slice(0, MOST_AXES);
}

function evenly(values, most) {
  return values.length <= most
    ? values
    : Array.from({ length: most }, (_, i) => values[Math.floor((i * values.length) / most)]);
}

// -- rows and drawing --------------------------------------------------------------------------------------------

export async function drawExplorer(id, state, kept, brushed, tooltip) {
  const spec = clone(data.charts[id]);
  const room = byId(id).clientWidth;
  const least = id === "scatter" ? 200 : AXIS_ROOM * axesShown(state).length;
  spec.width = Math.max(least, room - (id === "scatter" ? 90 : 80));
  spec.height = Math.max(230, Math.min(360, 0.6 * room));
  if (id === "scatter") {
    const names = scatterAxes(state);
    for (const [channel, name] of [
      ["x", names.a],
      ["y", names.b],
    ]) {
      const values = data.cells.id.map((_, cell) => numberOf(cell, name, state.step));
      const positive = values.every((value) => value === null || value > 0);
      if (!positive || state.linear.includes(`scatter.${channel}`))
        Object.assign(spec.encoding[channel].scale, { type: "linear", zero: false });
      spec.encoding[channel].axis.title = wordsOf(name);
    }
    shaped(spec);
  } else
    for (const layer of spec.layer) layer.encoding.x.axis.labelExpr = `(${axisNames(state)})[datum.label]`;
  data.datasets[id] = explorerRows(id, state, kept, brushed);
  return draw(id, spec, tooltip);
}

// Panels of the diagram as shapes: networks that coincide lie on each other, and both are seen.
function shaped(spec) {
  const { titles } = data.points;
  if (titles.length < 2 || titles.length > spec.encoding.shape.scale.range.length)
    return delete spec.encoding.shape;
  spec.encoding.shape.scale.domain = titles;
  return spec;
}

const axisNames = (state) =>
  JSON.stringify(
    Object.fromEntries(axesShown(state).map(({ name, log }) => [name, wordsOf(name) + (log ? ", log" : "")])),
  );

export async function fillExplorer(id, state, kept, brushed) {
  if (views[id]) await views[id].view.data(id, explorerRows(id, state, kept, brushed)).runAsync();
}

// Where no cell is shown, axes are those of all cells: nothing is drawn at their ends.
function corners(a, b, state) {
  const ends = (name) => {
    const values = data.cells.id.map((_, cell) => numberOf(cell, name, state.step));
    const known = values.filter((value) => value !== null);
    return [Math.min(...known), Math.max(...known)];
  };
  const [x, y] = [ends(a), ends(b)];
  return [0, 1].map((end) => ({ a: x[end], b: y[end], fade: 0 }));
}

function explorerRows(id, state, kept, brushed) {
  const cells = kept.flatMap((is, cell) => (is ? [cell] : []));
  const base = (cell) => ({
    cell,
    regime: regimeOf(cell, state.step),
    fade: brushed && !brushed.has(cell) ? FADED : 0.85,
  });
  if (id === "scatter") {
    const { a, b } = scatterAxes(state);
    if (!cells.length) return corners(a, b, state);
    byId("scatter-note").textContent = missingWords(
      cells.filter((cell) => [a, b].some((name) => numberOf(cell, name, state.step) === null)),
      cells.length,
      state.step,
      "no dot",
    );
    return cells.map((cell) => ({
      ...base(cell),
      panel: titleOf(data.points.panel[data.cells.point[cell]]),
      tip: `cell:${cell}`,
      a: numberOf(cell, a, state.step),
      b: numberOf(cell, b, state.step),
    }));
  }
  const axes = axesShown(state);
  const rows = axes.flatMap(({ name, ticks }) =>
    (ticks.length > 7 ? [ticks[0], ticks.at(-1)] : ticks).map(([place, text]) => ({
      kind: "tick",
      axis: name,
      place,
      text,
    })),
  );
  for (const cell of evenly(cells, MOST_LINES))
    for (const axis of axes)
      rows.push({ ...base(cell), kind: "line", axis: axis.name, place: axis.place(cell) });
  const few =
    cells.length > MOST_LINES ? `An even choice of ${MOST_LINES} of ${cells.length} cells is drawn. ` : "";
  const broken = cells.filter((cell) => axes.some((axis) => axis.place(cell) === null));
  byId("parallel-note").textContent =
    few + missingWords(broken, cells.length, state.step, "a line that breaks where the value is missing");
  return rows;
}
