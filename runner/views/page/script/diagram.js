// The diagram: rows of cells, the map of a measure, the few lines, and the frames of what is chosen.

import { byId, clone, data, draw, linearized, shown, views } from "./charts.js";
import { picture } from "./raster.js";

const AXIS = 116; // room left of the panels, and around them
const LABELS = { wide: 88, narrow: 60 }; // right of each for the names of its lines
const NARROW = 600;
const PALE = 0.45;
const FADED = 0.18;

const titleOf = (panel) => data.points.titles[panel];

// Panels beside and below each other so that they fill the window.
export function panelSizes(count, width, height) {
  let best = { score: 0 };
  const labels = width < NARROW ? LABELS.narrow : LABELS.wide;
  for (let columns = 1; columns <= count; columns++) {
    const rows = Math.ceil(count / columns);
    const across = (width - AXIS) / columns - labels;
    const up = Math.max(150, Math.min(640, (height - 70) / rows - 52));
    const score = Math.min(across, 1.5 * up) - 12 * (rows * columns - count);
    if (columns === 1 || score > best.score)
      best = { columns, width: Math.max(110, across), height: up, score };
  }
  return best;
}

function specification(state) {
  const spec = clone(data.charts.diagram);
  const node = byId("diagram");
  const room = Math.max(320, innerHeight - node.getBoundingClientRect().top - scrollY - 12);
  const size = panelSizes(
    data.points.titles.length,
    node.clientWidth,
    node.clientWidth < NARROW ? 0 : room - (state.color === "regime" ? 0 : 28),
  );
  spec.columns = size.columns;
  spec.spec.width = Math.floor(size.width);
  spec.spec.height = node.clientWidth < NARROW ? 230 : Math.floor(size.height);
  if (data.points.titles.length % size.columns) spec.resolve = { axis: { x: "independent" } };
  const measured = state.color !== "regime";
  const smooth = measured && !data.points.scattered.some(Boolean);
  const left = measured ? ["white", smooth ? "cells" : "chips"] : ["map", "chips"];
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
    if (node.clientWidth < NARROW && !measured) layer.encoding.color.legend.columns = 3;
  }
  linearized(
    spec,
    state.linear.flatMap((name) => (name.startsWith("diagram.") ? [name.slice(8)] : [])),
  );
  return spec;
}

function letterSize({ width, height }) {
  const most = (key) =>
    Math.max(
      ...data.points.titles.map(
        (_, panel) => new Set(data.points[key].filter((_, id) => data.points.panel[id] === panel)).size,
      ),
    );
  return data.points.scattered.some(Boolean)
    ? 0
    : Math.min(15, (0.5 * width) / most("x"), (0.6 * height) / most("y"));
}

let letters = 0;

export async function drawDiagram(state, tooltip) {
  const spec = specification(state);
  letters = letterSize(spec.spec);
  data.datasets.diagram = [];
  return draw("diagram", spec, tooltip);
}

function mixed(color) {
  const part = (at) => Math.round(PALE * parseInt(color.slice(at, at + 2), 16) + (1 - PALE) * 255);
  return `rgb(${part(1)}, ${part(3)}, ${part(5)})`;
}

// An axis of the diagram in pixels from its lower end, and back.
function axisOf(view, name) {
  const scale = view.scale(name);
  const [low, high] = scale.domain();
  const size = views.diagram.spec.spec[name === "x" ? "width" : "height"];
  const log = scale.type === "log";
  return {
    low,
    high,
    size,
    to: (value) => (log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low)) * size,
    from: (place) => (log ? low * (high / low) ** (place / size) : low + ((high - low) * place) / size),
  };
}

// The lines of each panel in pixels: [[x, y], ...], sorted.
function inPixels(lines, axes) {
  const found = {};
  for (const line of lines) {
    const own = ((found[line.panel] ??= {})[line.words] ??= []);
    own.push([axes.x.to(line.x), axes.y.to(line.y)]);
  }
  for (const panel of Object.values(found))
    for (const own of Object.values(panel)) own.sort(([a], [b]) => a - b);
  return found;
}

function heightAt(line, x) {
  const right = line.findIndex(([at]) => at >= x - 1e-6);
  if (right < 0) return null;
  const [[x0, y0], [x1, y1]] = [line[Math.max(0, right - 1)], line[right]];
  if (right === 0 && x1 > x + 1e-6) return null;
  return x1 > x0 ? y0 + ((y1 - y0) * (x - x0)) / (x1 - x0) : y1;
}

// Where the letter of a point stands: in the middle, or off it where a line passes through the middle.
function letterPlace(id, drawn, axes) {
  const { points } = data;
  const lines = Object.values(drawn[titleOf(points.panel[id])] ?? {});
  const [left, x, right] = ["x0", "x", "x1"].map((name) => axes.x.to(points[name][id]));
  const [low, y, high] = ["y0", "y", "y1"].map((name) => axes.y.to(points[name][id]));
  const free = ([across, up]) =>
    Math.min(
      0.7 * letters,
      ...lines
        .map((line) => heightAt(line, across))
        .filter((at) => at !== null)
        .map((at) => Math.abs(at - up)),
    );
  const reach = [Math.max(0, (right - left) / 2 - letters), Math.max(0, (high - low) / 2 - 0.75 * letters)];
  const tried = [
    [0, 0],
    [0, 0.7],
    [0, -0.7],
    [0, 1],
    [0, -1],
    [-0.7, 0],
    [0.7, 0],
    [-0.9, 1],
    [0.9, -1],
    [-0.9, -1],
    [0.9, 1],
  ].map(([across, up]) => [x + across * reach[0], y + up * reach[1]]);
  const best = tried.reduce((one, other) => (free(other) > free(one) + 0.5 ? other : one));
  return best === tried[0]
    ? { letterX: points.x[id], letterY: points.y[id] }
    : { letterX: axes.x.from(best[0]), letterY: axes.y.from(best[1]) };
}

function cellRow(point, state, faded) {
  const { points, legend } = data;
  const whole = point.agree === point.cells.length;
  const fill = point.regime ? legend.fills[point.regime] : "#ffffff";
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
    plain: whole ? fill : mixed(fill),
    letter: point.regime ? legend.letters[point.regime] + mark : point.failed ? "!" : "",
    letterSize: letters < 6 ? 0 : letters,
    fill: measured ? "#ffffff" : whole ? fill : mixed(fill),
    ink: measured || !whole || !point.regime ? "#000000" : legend.inks[point.regime],
    fade: faded ? FADED : measured || whole ? 1 : PALE,
  };
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

// The lines of the step, as rows: those of the end where those of the step are not on the page.
export function linesAt(state) {
  const place = state.step === null ? data.lines.length - 1 : data.steps.indexOf(state.step);
  const table = data.lines[place];
  if (!table || state.hidden.includes("lines")) return [];
  return table.panel.map((_, i) => Object.fromEntries(Object.keys(table).map((key) => [key, table[key][i]])));
}

function lineRows(state) {
  const rows = linesAt(state).map((line, place) => ({
    kind: "line",
    panel: titleOf(line.panel),
    x: line.x,
    y: line.place,
    words: line.words,
    tip: `line:${place}`,
    low: line.low ?? line.last,
    high: line.high ?? line.first,
  }));
  const { theory } = data;
  if (!state.hidden.includes("theory"))
    theory.panel.forEach((panel, i) =>
      rows.push({
        kind: "theory",
        panel: titleOf(panel),
        x: theory.x[i],
        y: theory.y[i],
        words: theory.words,
      }),
    );
  return rows;
}

// A line that has one place in its panel reaches over the rectangle of its points.
function withEnds(rows) {
  const { points } = data;
  const count = {};
  for (const row of rows) count[`${row.panel} ${row.words}`] = (count[`${row.panel} ${row.words}`] ?? 0) + 1;
  return rows.flatMap((row) => {
    if (count[`${row.panel} ${row.words}`] > 1) return [row];
    const id = points.x.findIndex((x, one) => x === row.x && titleOf(points.panel[one]) === row.panel);
    const end = (x) => ({ ...row, x, tip: null });
    return [end(points.x0[id]), row, end(points.x1[id])];
  });
}

// Names of the lines at the right border, pushed apart where they would lie on each other.
function labelRows(lines, view) {
  const found = [];
  const { low, high, size: height, to, from } = axisOf(view, "y");
  const edge = view.scale("x").domain()[1];
  const narrow = byId("diagram").clientWidth < NARROW;
  for (const title of data.points.titles) {
    const last = new Map();
    for (const line of lines)
      if (line.panel === title && line.y > low && line.y < high && !(last.get(line.words)?.x > line.x))
        last.set(line.words, line);
    const ends = [...last.values()].map((line) => ({ line, at: to(line.y) })).sort((a, b) => a.at - b.at);
    ends.forEach((end, i) => i && (end.at = Math.max(end.at, ends[i - 1].at + 13)));
    const beyond = ends.length ? ends.at(-1).at - height : 0;
    if (beyond > 0) ends.forEach((end) => (end.at = Math.max(0, end.at - beyond)));
    for (const { line, at } of ends)
      found.push({
        kind: "label",
        panel: title,
        x: edge,
        y: from(at),
        words: narrow ? line.words.split(" ")[0] : line.words,
      });
  }
  return found;
}

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
  const drawn = inPixels(lines, axes);
  for (const cell of cells) Object.assign(cell, letterPlace(cell.id, drawn, axes));
  const rows = [...cells, ...mapRows(points, state, view), ...lines, ...labelRows(lines, view), ...frames];
  await view.data("diagram", rows).resize().runAsync(); // there are as many panels as rows have
}

export function lineWords(line) {
  const interval =
    line.low === null
      ? `between ${shown(line.last)} and ${shown(line.first)}${line.reason ? ` (${line.reason})` : ""}`
      : `[${shown(line.low)}, ${shown(line.high)}]`;
  return `${shown(line.place)} ${interval}`;
}
