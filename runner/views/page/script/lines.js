// The few lines of the diagram: boundaries with their bands, theory's rate, their names, and in words.

import { byId, data, shown } from "./charts.js";
import { axisOf, longest, NARROW, titleOf } from "./places.js";

// The lines of the step, as rows: those of the end where those of the step are not on the page.
export function linesAt(state) {
  const place = state.step === null ? data.lines.length - 1 : data.steps.indexOf(state.step);
  const table = data.lines[place];
  if (!table || state.hidden.includes("lines")) return [];
  return table.panel.map((_, i) => Object.fromEntries(Object.keys(table).map((key) => [key, table[key][i]])));
}

function cellAt({ panel, x, place }) {
  const { points } = data;
  const found = points.x.findIndex(
    (one, id) => one === x && points.panel[id] === panel && points.y0[id] <= place && place < points.y1[id],
  );
  return found < 0 ? undefined : found;
}

export function lineRows(state) {
  const rows = linesAt(state).map((line, place) => ({
    kind: "line",
    panel: titleOf(line.panel),
    x: line.x,
    y: line.place,
    words: line.words,
    id: cellAt(line), // a click on its point chooses the cell below
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
export function withEnds(rows) {
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

const nameOf = (words) => (byId("diagram").clientWidth < NARROW ? words.split(" ")[0] : words);

// Pixels that the names of all lines need right of a panel, with what is between it and the next.
export function namesRoom() {
  const { spacing, spec } = data.charts.diagram;
  const { fontSize, limit, dx } = spec.layer.find((layer) => layer.name === "labels").mark;
  const words = new Set([data.theory.words, ...data.lines.flatMap((table) => table?.words ?? [])]);
  return dx + Math.min(limit, longest([...words].map(nameOf), fontSize)) + spacing.column;
}

// Names of the lines at the right border, pushed apart where they would lie on each other.
export function labelRows(lines, view) {
  const found = [];
  const { low, high, size: height, to, from } = axisOf(view, "y");
  const edge = view.scale("x").domain()[1];
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
        words: nameOf(line.words),
      });
  }
  return found;
}

export function lineWords(line) {
  const interval =
    line.low === null
      ? `between ${shown(line.last)} and ${shown(line.first)}${line.reason ? ` (${line.reason})` : ""}`
      : `[${shown(line.low)}, ${shown(line.high)}]`;
  return `${shown(line.place)} ${interval}`;
}
