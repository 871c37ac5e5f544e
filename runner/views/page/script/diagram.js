// The diagram: rows of cells, the map of a measure, the few lines, and the frames of what is chosen.

import { byId, clone, data, draw, linearized, views } from "./charts.js";
import { letterRows, letterSize } from "./letters.js";
import { labelRows, lineRows, namesRoom, withEnds } from "./lines.js";
import { axisOf, NARROW, panelSizes, titleOf } from "./places.js";
import { picture } from "./raster.js";

const FADED = 0.18;
// The tooltip leaves the letters of the row and of the column of its cell in sight.
const CORNERWISE = {
  anchor: "mark",
  position: ["bottom-right", "bottom-left", "top-right", "top-left"],
  offsetX: 4,
  offsetY: 4,
};
const MOST_SPARE = 40;
const CORNER = 0.42; // of a rectangle's smaller side: that of the corner which tells of another regime

function specification(state) {
  const spec = clone(data.charts.diagram);
  const node = byId("diagram");
  const room = Math.max(320, innerHeight - node.getBoundingClientRect().top - scrollY - 12);
  const size = panelSizes(
    data.points.titles.length,
    node.clientWidth - spare,
    node.clientWidth < NARROW ? 0 : room - (state.color === "regime" ? 0 : 28),
    namesRoom(),
  );
  spec.columns = size.columns;
  spec.spec.width = Math.floor(size.width);
  spec.spec.height = node.clientWidth < NARROW ? 230 : Math.floor(size.height);
  if (data.points.titles.length % size.columns) spec.resolve = { axis: { x: "independent" } };
  const measured = state.color !== "regime";
  const smooth = measured && !data.points.scattered.some(Boolean);
  const left = measured ? ["white", "corners", smooth ? "cells" : "chips"] : ["map", "chips"];
  spec.spec.layer = spec.spec.layer.filter((layer) => !left.includes(layer.name));
  const letters = letterSize(spec.spec);
  for (const layer of spec.spec.layer) {
    if (layer.name !== "cells" && layer.name !== "chips") continue;
    layer.encoding.color = clone(data.colors[state.color]);
    if (measured) {
      layer.encoding.color.condition = { test: "!isValid(datum.value)", value: { expr: "datum.plain" } };
      layer.mark.invalid = null;
    }
    if (layer.name === "chips") layer.mark.size = Math.max(30, (1.4 * letters) ** 2);
    if (node.clientWidth < NARROW && !measured) layer.encoding.color.legend.columns = 2;
  }
  linearized(
    spec,
    state.linear.flatMap((name) => (name.startsWith("diagram.") ? [name.slice(8)] : [])),
  );
  return spec;
}

let letters = 0;
let spare = 0; // pixels that labels take beyond what is left for them

// Whether the diagram came out wider than its place: drawn again, it is not.
export function isTooWide() {
  const beyond = byId("diagram").querySelector("svg").clientWidth - byId("diagram").clientWidth;
  if (beyond <= 0 || spare + beyond > MOST_SPARE) return false; // what is wider still scrolls
  spare += beyond;
  return true;
}

export async function drawDiagram(state, tooltip) {
  const spec = specification(state);
  letters = letterSize(spec.spec);
  data.datasets.diagram = [];
  return draw("diagram", spec, tooltip, CORNERWISE);
}

function cellRow(point, state, faded) {
  const { points, legend } = data;
  const fill = fillOf(point.regime);
  const measured = state.color !== "regime";
  const mark = state.step === null ? marksOf(point) : "";
  return {
    kind: "cell",
    id: point.id,
    panel: titleOf(points.panel[point.id]),
    tip: `point:${point.id}`,
    ...borders(point.id),
    regime: point.regime,
    value: point.value,
    plain: fill,
    letter: point.regime ? legend.letters[point.regime] + mark : point.failed ? "!" : "",
    fill: measured ? "#ffffff" : fill,
    ink: measured || !point.regime ? "#000000" : legend.inks[point.regime],
    fade: faded ? FADED : 1,
  };
}

const fillOf = (regime) => (regime ? data.legend.fills[regime] : "#ffffff");

// Where seeds disagree, a corner of the rectangle has the colour of the regime of the next most: on a tie, half of it.
function cornerRows(point, cell, axes) {
  if (point.agree === point.cells.length) return [];
  const [right, top] = [axes.x.to(cell.x1), axes.y.to(cell.y1)];
  if (point.tied) {
    const { panel, fade, x1, y0, y1 } = cell;
    const middle = axes.x.from((axes.x.to(cell.x0) + right) / 2);
    return [{ kind: "corner", panel, fade, fill: fillOf(point.second), x0: middle, x1, y0, y1 }];
  }
  const side = CORNER * Math.min(right - axes.x.to(cell.x0), top - axes.y.to(cell.y0));
  const { panel, fade, x1, y1 } = cell;
  const place = { x0: axes.x.from(right - side), x1, y0: axes.y.from(top - side), y1 };
  return [{ kind: "corner", panel, fade, fill: fillOf(point.second), ...place }];
}

// The letter of the other regime of a tie, as that of a row.
function secondOf(point) {
  const { letters: names, inks } = data.legend;
  return { letter: names[point.second], fill: fillOf(point.second), ink: inks[point.second] };
}

// The marks of flags that most seeds of a point have.
function marksOf(point) {
  const { marks } = data.cells;
  const every = marks ? point.cells.map((cell) => marks[cell]) : [];
  const some = [...new Set(every.join(""))];
  return some.filter((mark) => 2 * every.filter((own) => own.includes(mark)).length > every.length).join("");
}

const borders = (id) =>
  Object.fromEntries(["x", "y", "x0", "x1", "y0", "y1"].map((name) => [name, data.points[name][id]]));

function mapRows(points, state, view) {
  if (state.color === "regime" || data.points.scattered.some(Boolean)) return [];
  const scale = view.scale("color");
  const logs = {
    x: view.scale("x").type === "log",
    y: view.scale("y").type === "log",
    value: scale.type.includes("log"),
  };
  return data.points.titles.flatMap((title, panel) => {
    const own = points.filter((point) => point.cells.length && data.points.panel[point.id] === panel);
    const rows = own.map((point) => ({
      x: data.points.x[point.id],
      y: data.points.y[point.id],
      value: point.value,
    }));
    const found = picture(rows, logs, scale);
    return found ? [{ kind: "map", panel: title, ...found }] : [];
  });
}

// whole: whether every point has all of its cells, without which the lines would not be of what is shown.
export async function fillDiagram(points, state, brushed, picks, whole) {
  const { view } = views.diagram;
  const visible = points.filter((point) => point.cells.length);
  const cells = visible.map((point) =>
    cellRow(point, state, brushed && !point.cells.some((cell) => brushed.has(cell))),
  );
  const there = new Set(visible.map(({ id }) => `${data.points.x[id]} ${titleOf(data.points.panel[id])}`));
  const lines = whole ? withEnds(lineRows(state).filter((line) => there.has(`${line.x} ${line.panel}`))) : [];
  const frames = picks.flatMap((id, place) =>
    id === null
      ? []
      : [
          {
            kind: "pick",
            panel: titleOf(data.points.panel[id]),
            ...borders(id),
            stroke: ["#1a1a1a", "#0072b2"][place],
          },
        ],
  );
  const axes = { x: axisOf(view, "x"), y: axisOf(view, "y") };
  const lettered = visible.flatMap((point, place) =>
    letterRows(cells[place], point.tied && secondOf(point), axes, letters, state.color === "regime"),
  );
  const corners = visible.flatMap((point, place) => cornerRows(point, cells[place], axes));
  // Panels are those that rows have: of no cell they stay as they are, empty.
  const empty = visible.length ? [] : data.points.titles.map((panel) => ({ kind: "empty", panel }));
  const labels = labelRows(lines, view);
  const rows = [
    ...lettered,
    ...corners,
    ...empty,
    ...mapRows(points, state, view),
    ...lines,
    ...labels,
    ...frames,
  ];
  await view.data("diagram", rows).resize().runAsync(); // there are as many panels as rows have
}
