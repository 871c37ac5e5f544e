// The cells as columns: which are shown, their values at a step, and what the seeds of a point say together.

// Conditions are {key: [values as text]}; of an empty list nothing is asked.
export function keptCells(cells, where) {
  const kept = cells.id.map(() => true);
  for (const [key, wanted] of Object.entries(where)) {
    const column = columnOf(cells, key);
    if (!column || !wanted.length) continue;
    const meets = column.values.map((value) => wanted.includes(String(value)));
    column.at.forEach((code, cell) => (kept[cell] &&= meets[code]));
  }
  return kept;
}

export function columnOf(cells, key) {
  return key === "status" ? cells.status : Object.hasOwn(cells.keys, key) ? cells.keys[key] : undefined;
}

export function keyOf(cells, key, cell) {
  const column = columnOf(cells, key);
  return column && column.values[column.at[cell]];
}

// A measure of a cell when it was last taken, up to a step; null is the end, as the table has it. A cell that has
// diverged by then has none.
export function valueAt(data, cell, measure, step) {
  if (step === null) return data.cells.measures[measure][cell];
  const curve = data.curves.cells[cell];
  const place = data.curves.measures.indexOf(measure);
  if (!curve || place < 0 || letterAt(data, cell, step) === data.legend.letters.diverged) return null;
  const steps = data.curves.steps[curve.at];
  for (let i = steps.length - 1; i >= 0; i--)
    if (steps[i] <= step && curve.trace[place][i] !== null) return curve.trace[place][i];
  return null;
}

export function letterAt(data, cell, step) {
  const letters = data.regimes[cell];
  return letters[step === null ? letters.length - 1 : data.steps.indexOf(step)];
}

export function median(values) {
  const known = values.filter((value) => value !== null && Number.isFinite(value)).sort((a, b) => a - b);
  if (!known.length) return null;
  return (known[(known.length - 1) >> 1] + known[known.length >> 1]) / 2;
}

// Per point of the diagram its shown cells, their regime by majority and the median of a measure. On a tie the
// tamer regime comes second: half the seeds diverging is worth seeing.
export function atPoints(data, kept, step, measure) {
  const { cells, legend } = data;
  const found = data.points.x.map((_, id) => ({ id, cells: [] }));
  cells.point.forEach((point, cell) => kept[cell] && found[point].cells.push(cell));
  for (const point of found) {
    const counts = legend.names.map(() => 0);
    for (const cell of point.cells) {
      const place = legend.names.findIndex((name) => legend.letters[name] === letterAt(data, cell, step));
      if (place >= 0) counts[place] += 1;
    }
    const most = Math.max(...counts);
    point.regime = most ? legend.names[counts.lastIndexOf(most)] : null;
    point.agree = most;
    const others = counts.map((count, place) => (legend.names[place] === point.regime ? 0 : count));
    const next = Math.max(...others);
    point.second = next ? legend.names[others.lastIndexOf(next)] : null;
    point.tied = most > 0 && next === most;
    point.counts = legend.names.flatMap((name, place) => (counts[place] ? [[name, counts[place]]] : []));
    point.failed = point.cells.filter((cell) => keyOf(cells, "status", cell) === "failed").length;
    point.value = measure ? median(point.cells.map((cell) => valueAt(data, cell, measure, step))) : null;
  }
  return found;
}

// The shown cells as comma-separated values, as the table has them: keys, then measures at the step.
export function asCsv(data, chosen, step) {
  const { cells } = data;
  const keys = Object.keys(cells.keys);
  const measures = Object.keys(cells.measures);
  const names = Object.fromEntries(data.legend.names.map((name) => [data.legend.letters[name], name]));
  const head = ["cell_id", ...keys, "status", "step", "regime", ...measures];
  const rows = chosen.map((cell) => [
    cells.id[cell],
    ...keys.map((key) => keyOf(cells, key, cell)),
    keyOf(cells, "status", cell),
    step ?? data.steps.at(-1),
    names[letterAt(data, cell, step)],
    ...measures.map((measure) => valueAt(data, cell, measure, step)),
  ]);
  const field = (value) =>
    /[",\n]/.test(String(value ?? "")) ? `"${String(value).replaceAll('"', '""')}"` : (value ?? "");
  return [head, ...rows].map((row) => row.map(field).join(",")).join("\n") + "\n";
}
