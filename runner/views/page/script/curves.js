// The training curves of the chosen point, those of the one that it is compared with on top.

import { arranged, byId, clone, data, draw, linearized, views, wordsOf } from "./charts.js";

const FIRST = 3; // measures that are drawn when nobody says which
export const BRUSHED = "brushed";
const BEHIND = "#8c8c8c"; // of what is brushed
const NAMED = 8; // series that a legend tells apart

export const curveNames = () => [
  ...data.curves.measures,
  ...(data.curves.layerMeasure ? [data.curves.layerMeasure + " by layer"] : []),
];

export function curvesShown(state) {
  const names = curveNames();
  const asked = state.show?.filter((name) => names.includes(name));
  return (
    asked ?? [
      ...names.slice(0, Math.min(FIRST, data.curves.measures.length)),
      ...names.slice(data.curves.measures.length),
    ]
  );
}

// Rows of each measure by name: one series per seed, or per point where two are compared.
export function curveRows(chosen, names) {
  const { measures, steps, cells } = data.curves;
  const rows = Object.fromEntries(names.map((name) => [name, []]));
  const several = chosen.length > 1;
  chosen.forEach(({ name, members }) => {
    for (const cell of members) {
      const curve = cells[cell];
      if (!curve) continue;
      const seed = data.cells.seed[cell];
      const add = (key, series, values) =>
        values.forEach((value, i) => {
          if (value !== null && value > 0)
            rows[key]?.push({
              series,
              line: `${cell} ${series}`,
              step: steps[curve.at][i],
              value,
              low: value,
              high: value,
            });
        });
      curve.trace.forEach((values, place) => add(measures[place], several ? name : `seed ${seed}`, values));
      for (const [layer, values] of name === BRUSHED ? [] : Object.entries(curve.layers ?? {}))
        add(curveNames().at(-1), name.length === 1 ? `${name} ${layer}` : layer, values);
    }
  });
  return rows;
}

// One picture: panels share their time axis, and the step of the diagram is a line in each.
export async function drawCurves(chosen, state) {
  const names = curvesShown(state);
  const rows = curveRows(chosen, names);
  const spec = clone(data.charts.curves);
  const [panel] = spec.concat;
  delete spec.data;
  delete panel.data;
  const last = Math.max(...data.curves.steps.flat());
  spec.concat = names
    .filter((name) => rows[name].length)
    .map((name) => {
      const own = clone(panel);
      own.title = wordsOf(name);
      for (const layer of own.layer) {
        layer.data = { values: rows[name] };
        const series = [...new Set(rows[name].map((row) => row.series))].sort(
          (a, b) => (a === BRUSHED) - (b === BRUSHED) || a.localeCompare(b, "en", { numeric: true }),
        );
        const few = series.length <= NAMED;
        const { range } = layer.encoding.color.scale;
        layer.encoding.color.scale = {
          domain: series,
          range: series.map((one, i) => (one === BRUSHED ? BEHIND : range[i % range.length])),
        };
        if (layer.mark.type !== "line") layer.transform = [{ filter: `datum.series !== '${BRUSHED}'` }];
        layer.encoding.x.scale.domain = [0, last];
        for (const channel of ["color", "strokeDash"])
          if (layer.encoding[channel]?.legend)
            layer.encoding[channel].legend = few
              ? { ...layer.encoding[channel].legend, title: null, columns: 2 }
              : null;
      }
      own.layer.push({
        data: { name: "now" },
        mark: { type: "rule", color: { expr: "ink" }, strokeDash: [2, 2] },
        encoding: { x: { field: "step", type: "quantitative" } },
      });
      return own;
    });
  if (!spec.concat.length) {
    views.curves?.finalize();
    delete views.curves;
    byId("curves").textContent = chosen.length ? "The curves of this point are not on this page." : "";
    return;
  }
  const channels = state.linear.includes("curves") ? ["y"] : [];
  if (state.linear.includes("steps"))
    for (const own of spec.concat)
      for (const { encoding } of own.layer) {
        if (encoding.x.scale) encoding.x.scale.type = "linear";
        delete encoding.x.axis?.values;
      }
  arranged(spec, "curves", 66, Math.max(125, byId("curves").clientWidth / 2 - 80), 420); // two at most
  for (const own of spec.concat) own.title = { text: own.title, limit: own.width + 30 };
  data.datasets.now = nowOf(state);
  await draw("curves", linearized(spec, channels));
}

const nowOf = (state) => (state.step === null ? [] : [{ step: state.step }]);

// The step of the diagram as a line in each panel, without drawing the curves again.
export async function markStep(state) {
  await views.curves?.view.data("now", nowOf(state)).runAsync();
}
