// The page's own script: draws the charts, and shows the curves of the point that is chosen.
// Specifications and data come from runner/views; nothing is drawn here.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const clone = (value) => JSON.parse(JSON.stringify(value));
const views = {};
let chosen = null;

// -- theme --------------------------------------------------------------------------------------------

const root = document.documentElement;

function setTheme(name) {
  root.dataset.theme = name;
  byId("theme").textContent = name === "dark" ? "Light" : "Dark";
}

function themed(spec) {
  const style = getComputedStyle(root);
  for (const param of spec.params ?? []) {
    const value = style.getPropertyValue(`--${param.name}`).trim();
    if (value) param.value = value;
  }
  return spec;
}

// -- drawing ------------------------------------------------------------------------------------------

// Panels side by side as the place allows: `around` is the room of axes and labels.
function arranged(spec, id, around, least, most) {
  const room = byId(id).clientWidth - 16;
  const columns = Math.max(1, Math.min(spec.concat.length, Math.floor(room / (least + around))));
  const width = Math.max(60, Math.min(most, Math.floor(room / columns - around)));
  spec.columns = columns;
  for (const panel of spec.concat) {
    panel.height = Math.round(panel.height * (id === "phase" ? 1 : width / panel.width));
    panel.width = width;
  }
  return spec;
}

function named(value, found) {
  if (value && typeof value === "object") {
    if (value.data?.name) found.add(value.data.name);
    Object.values(value).forEach((inner) => named(inner, found));
  }
  return found;
}

async function draw(id, spec) {
  const datasets = spec.datasets ?? {};
  for (const name of named(spec, new Set())) datasets[name] ??= data.datasets[name];
  spec.datasets = datasets;
  views[id]?.finalize();
  const result = await vegaEmbed(byId(id), themed(spec), { actions: false, renderer: "svg", ast: true });
  views[id] = result;
  return result.view;
}

// -- the diagram --------------------------------------------------------------------------------------

function cellRows(panel) {
  const layer = panel.layer.find((one) => one.name?.startsWith("cells"));
  return data.datasets[(layer.data ?? panel.data ?? data.charts.phase.data).name];
}

const panels = data.charts.phase.concat.map((panel) => ({ title: panel.title, rows: cellRows(panel) }));
const places = new Map();
panels.forEach((panel, place) => panel.rows.forEach((row) => places.set(row.id, { place, row })));

function phaseSpec() {
  const spec = arranged(clone(data.charts.phase), "phase", 155, 120, 330);
  const color = data.colors[byId("color").value];
  if (color) {
    for (const panel of spec.concat) {
      panel.layer = panel.layer.filter((layer) => !layer.name?.startsWith("letters"));
      const cells = panel.layer.find((layer) => layer.name?.startsWith("cells"));
      cells.transform = [{ filter: `isValid(datum.${color.field})` }];
      cells.encoding.color = color.color;
      delete cells.encoding.fillOpacity;
    }
  }
  const narrow = byId("phase").clientWidth < 480;
  for (const panel of spec.concat)
    for (const layer of panel.layer)
      if (narrow && layer.encoding?.color?.legend?.orient === "top") layer.encoding.color.legend.columns = 3;
  const picked = spec.params.find((param) => param.name === "picked");
  if (picked && chosen !== null) picked.value = chosen;
  return spec;
}

async function drawPhase() {
  const view = await draw("phase", phaseSpec());
  view.addEventListener("click", (_, item) => {
    if (item?.datum?.id !== undefined) choose(item.datum.id);
  });
}

// -- the curves of a point ----------------------------------------------------------------------------

function curveRows() {
  const { measures, layerMeasure, steps, cells } = data.curves;
  const rows = [...measures, ...(layerMeasure ? [layerMeasure] : [])].map(() => []);
  for (const cell of cells[chosen] ?? []) {
    const add = (place, series, line, values) =>
      values.forEach((value, i) => {
        if (value !== null && value > 0)
          rows[place].push({ series, line, step: steps[cell.at][i], value, low: value, high: value });
      });
    cell.trace.forEach((values, place) => add(place, String(cell.seed), String(cell.seed), values));
    for (const [layer, values] of Object.entries(cell.layers ?? {}))
      add(measures.length, layer, `${layer} ${cell.seed}`, values);
  }
  return rows;
}

async function drawCurves() {
  const spec = arranged(clone(data.charts.curves), "curves", 100, 160, 300);
  const rows = curveRows();
  delete spec.data;
  spec.concat = spec.concat.filter((panel, place) => {
    delete panel.data;
    for (const layer of panel.layer) layer.data = { values: rows[place] };
    return rows[place].length;
  });
  if (!spec.concat.length) {
    views.curves?.finalize();
    byId("curves").textContent = "The curves of this point are not on this page.";
    return;
  }
  await draw("curves", spec);
}

function described({ place, row }) {
  const where = [panels[place].title, `${data.x} ${row.x}`, `${data.y} ${row.y}`].filter(Boolean).join(", ");
  const share = row.seeds > 1 && row.regime ? ` (${Math.round(100 * row.share)} % of ${row.seeds} seeds)` : "";
  return `${where}: ${row.regime ?? "no regime"}${share}`;
}

async function choose(id) {
  chosen = id;
  const found = places.get(id);
  fillPicker(found);
  byId("point").textContent = described(found);
  views.phase?.view.signal("picked", id).runAsync();
  await drawCurves();
}

// -- menus and keys -----------------------------------------------------------------------------------

function menu(label, names, value, onchange) {
  const box = document.createElement("label");
  const select = document.createElement("select");
  names.forEach(([key, name]) => select.add(new Option(name, key)));
  select.value = value;
  select.addEventListener("change", () => onchange(select.value));
  box.append(`${label} `, select);
  return box;
}

const sorted = (rows, key) => [...new Set(rows.map((row) => row[key]))].sort((a, b) => a - b);

// The point nearest to the wanted place in a panel.
function nearest(place, x, y) {
  const rows = panels[place].rows;
  const far = (a, b) => Math.abs(a > 0 && b > 0 ? Math.log(a / b) : a - b);
  return rows.reduce((best, row) => (far(row.x, x) + far(row.y, y) < far(best.x, x) + far(best.y, y) ? row : best)).id;
}

function fillPicker({ place, row }) {
  const focused = document.activeElement?.closest("#picker label");
  const index = focused ? [...byId("picker").children].indexOf(focused) : -1;
  const rows = panels[place].rows;
  const values = (key) => sorted(rows, key).map((value) => [value, String(value)]);
  const boxes = [
    menu(data.x, values("x"), row.x, (x) => choose(nearest(place, Number(x), row.y))),
    menu(data.y, values("y"), row.y, (y) => choose(nearest(place, row.x, Number(y)))),
  ];
  if (panels.length > 1) {
    const names = panels.map((panel, i) => [i, panel.title]);
    boxes.unshift(menu(data.facets.join(", "), names, place, (to) => choose(nearest(Number(to), row.x, row.y))));
  }
  byId("picker").replaceChildren(...boxes);
  if (index >= 0) boxes[index]?.querySelector("select").focus();
}

const MOVES = { ArrowLeft: ["x", -1], ArrowRight: ["x", 1], ArrowDown: ["y", -1], ArrowUp: ["y", 1] };

byId("phase").addEventListener("keydown", (event) => {
  const { place, row } = places.get(chosen);
  if (event.key === "PageDown" || event.key === "PageUp") {
    const to = place + (event.key === "PageDown" ? 1 : -1);
    if (panels[to]) choose(nearest(to, row.x, row.y));
  } else if (MOVES[event.key]) {
    const [key, by] = MOVES[event.key];
    const values = sorted(panels[place].rows, key);
    const next = values[values.indexOf(row[key]) + by];
    if (next !== undefined) choose(nearest(place, key === "x" ? next : row.x, key === "y" ? next : row.y));
  } else return;
  event.preventDefault();
});

// -- the rest -----------------------------------------------------------------------------------------

function drawRest(id) {
  return draw(id, arranged(clone(data.charts[id]), id, ...data.rooms[id]));
}

// Charts further down are drawn when they come near.
const waiting = new IntersectionObserver(
  (entries) => {
    for (const entry of entries)
      if (entry.isIntersecting) {
        waiting.unobserve(entry.target);
        drawRest(entry.target.id);
      }
  },
  { rootMargin: "400px" },
);
const rest = Object.keys(data.rooms);

async function drawAll() {
  await drawPhase();
  await drawCurves();
  rest.forEach((id) => (views[id] ? drawRest(id) : waiting.observe(byId(id))));
}

const names = [["regime", "regime"], ...Object.keys(data.colors).map((name) => [name, name])];
names.forEach(([key, name]) => byId("color").add(new Option(name, key)));
byId("color").addEventListener("change", drawPhase);
byId("theme").addEventListener("click", () => {
  setTheme(root.dataset.theme === "dark" ? "light" : "dark");
  drawAll();
});
let width = innerWidth;
let timer;
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  clearTimeout(timer);
  timer = setTimeout(drawAll, 200);
});

setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
const ids = [...places.keys()];
chosen = ids.find((id) => data.curves.cells[id] && places.get(id).row.regime === "rich") ?? ids[0];
fillPicker(places.get(chosen));
byId("point").textContent = described(places.get(chosen));
await drawAll();
document.body.dataset.ready = "yes";
