// The page: one state, which every control changes and every chart follows.

import { byId, data, element, saveText, views } from "./charts.js";
import { curveNames, curvesShown, drawCurves, markStep } from "./curves.js";
import { tooltipOf } from "./describe.js";
import { drawDiagram, fillDiagram } from "./diagram.js";
import { brushedCells, drawExplorer, fillExplorer, numberNames, onBrush, scatterAxes } from "./explore.js";
import { drawFilters, filterWords, foundCells } from "./filters.js";
import { MOVES, moved } from "./keys.js";
import { curvesOf, describePoints } from "./panel.js";
import { drawSection, sectionNames, tools, whenNear, whileSeen } from "./sections.js";
import { fromFragment, toFragment } from "./state.js";
import { asCsv, atPoints, keptCells } from "./table.js";

const root = document.documentElement;
const EXPLORERS = ["scatter", "parallel"];
const PLAY_MS = 500;
let state = fromFragment(location.hash);
let kept, points, brushed, playing;

// -- the state, read ---------------------------------------------------------------------------------------------

const pointOf = (id) => data.cells.point[data.cells.id.indexOf(id)] ?? null;
// The point to speak of: the chosen one, while a filter leaves some of its cells, else one that is rich, for its
// curves say most. Null where no cell is shown.
function picked() {
  const id = pointOf(state.pick);
  if (id !== null && points[id].cells.length) return id;
  const shown = points.filter((point) => point.cells.length);
  const says = (point) =>
    point.cells.some((cell) => data.regimes[cell].endsWith("R") && data.curves.cells[cell]);
  return (shown.find(says) ?? shown[0])?.id ?? null;
}

function other() {
  const id = pointOf(state.other);
  return id !== null && points[id].cells.length ? id : null;
}

const firstCell = (point) => data.cells.id[data.cells.point.indexOf(point)];
const tooltip = (text, safe) => tooltipOf(text, safe, points, state);

function checked() {
  if (!Object.hasOwn(data.colors, state.color)) state.color = "regime";
  if (!data.steps.slice(0, -1).includes(state.step)) state.step = null;
  if (pointOf(state.pick) === null) state.pick = null;
  if (pointOf(state.other) === null) state.other = null;
}

function read() {
  kept = keptCells(data.cells, state.where);
  points = atPoints(data, kept, state.step, state.color === "regime" ? null : state.color);
  brushed = brushedCells(state, kept);
}

const chosenCells = () => kept.flatMap((is, cell) => (is && (!brushed || brushed.has(cell)) ? [cell] : []));
const isWhole = () => data.cells.point.every((point, cell) => kept[cell] || !points[point].cells.length);

// -- the state, changed ------------------------------------------------------------------------------------------

const REDRAWN = ["color", "linear"];

function change(given) {
  state = { ...state, ...given };
  const fragment = toFragment(state);
  history.replaceState(null, "", fragment ? `#${fragment}` : location.pathname + location.search);
  return followed(Object.keys(given));
}

// Changes that come while charts are being drawn are followed together, when these are done.
const waiting = new Set();
let following = null;

function followed(names) {
  names.forEach((name) => waiting.add(name));
  return (following ??= followAll());
}

async function followAll() {
  try {
    while (waiting.size) {
      const names = [...waiting];
      waiting.clear();
      await follow(names);
    }
  } finally {
    following = null;
  }
  document.body.dataset.shown = toFragment(state);
}

async function follow(changed) {
  const any = (...names) => names.some((name) => changed.includes(name));
  read();
  controls();
  if (any(...REDRAWN)) await drawMain();
  else await fillMain();
  if (any("a", "b", "linear")) await redrawExplorers(["scatter"]);
  EXPLORERS.forEach((id) => stale.add(id));
  await fillSeen();
  describe();
  if (any("pick", "other", "where", "show", "linear", "brush")) await drawCurves(compared(), state);
  else if (any("step")) await markStep(state);
}

async function drawMain() {
  await drawDiagram(state, tooltip);
  listen();
  await fillMain();
}

// Charts of single cells that nobody sees are filled when they come into view.
const seen = new Set();
const stale = new Set();

function fillSeen() {
  const ids = EXPLORERS.filter((id) => seen.has(id) && stale.delete(id));
  return Promise.all(ids.map((id) => fillExplorer(id, state, kept, brushed)));
}

const fillMain = () => fillDiagram(points, state, brushed, [picked(), other()], isWhole());

async function redrawExplorers(ids) {
  for (const id of ids.filter((one) => views[one])) {
    await drawExplorer(id, state, kept, brushed, tooltip);
    onBrush(id, brushChanged);
  }
}

const brushChanged = (brush) => change({ brush });

function listen() {
  onBrush("diagram", brushChanged);
  let pressed = null;
  const { view } = views.diagram;
  view.addEventListener("pointerdown", (event) => (pressed = [event.clientX, event.clientY]));
  view.addEventListener("click", (event, item) => {
    const moved = pressed && Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) > 4;
    if (item?.datum?.id === undefined || moved) return;
    pick(item.datum.id, event.shiftKey);
  });
}

const pick = (point, other = false) => change({ [other ? "other" : "pick"]: firstCell(point) });

// -- the panel beside the diagram --------------------------------------------------------------------------------

const describe = () => describePoints(picked(), other(), points, state);
const compared = () => curvesOf(picked(), other(), points, brushed);

// -- controls ----------------------------------------------------------------------------------------------------

function controls() {
  byId("color").value = state.color;
  const place = state.step === null ? data.steps.length - 1 : data.steps.indexOf(state.step);
  byId("step").value = String(place);
  byId("at").textContent = state.step === null ? `${data.steps.at(-1) ?? ""} (end)` : String(state.step);
  byId("step").setAttribute("aria-valuetext", byId("at").textContent);
  const words = filterWords(state);
  byId("filtered").textContent = words ? `Filter: ${words}` : "Filter";
  const chosen = chosenCells().length;
  const whole = isWhole() ? "" : " The lines are of all seeds and hidden while a filter parts them.";
  byId("selected").textContent =
    words || brushed
      ? `${chosen} of ${data.cells.id.length} cells${brushed ? " brushed" : ""}.${whole}`
      : `${data.cells.id.length} cell${data.cells.id.length === 1 ? "" : "s"}.`;
  byId("clear").disabled = !(words || brushed || state.other);
  const untimed =
    state.step !== null && state.color !== "regime" && !data.curves.measures.includes(state.color);
  byId("untimed").textContent = untimed ? `${state.color} was measured at the end only.` : "";
  for (const box of document.querySelectorAll("[data-line]"))
    box.checked = !state.hidden.includes(box.dataset.line);
  const names = scatterAxes(state);
  for (const axis of ["a", "b"]) byId(axis).value = names[axis];
  byId("swap").disabled = other() === null;
  byId("compare").disabled = picked() === null;
  keepFocus(() => drawFilters(state, (key, values) => change({ where: { ...state.where, [key]: values } })));
}

function keepFocus(redraw) {
  const { key, value } = document.activeElement?.dataset ?? {};
  redraw();
  if (key)
    document.querySelector(`[data-key="${CSS.escape(key)}"][data-value="${CSS.escape(value)}"]`)?.focus();
}

const toggled = (list, name) => (list.includes(name) ? list.filter((one) => one !== name) : [...list, name]);

function play() {
  const going = playing !== undefined;
  clearInterval(playing);
  playing = undefined;
  byId("play").textContent = going ? "Play" : "Pause";
  if (going) return;
  let place = state.step === null ? 0 : data.steps.indexOf(state.step) + 1;
  const next = () => {
    const last = place >= data.steps.length - 1;
    change({ step: last ? null : data.steps[place++] });
    if (last) play();
  };
  playing = setInterval(next, PLAY_MS);
  next();
}

function find() {
  const found = foundCells(byId("find").value);
  byId("found").textContent = byId("find").value.trim()
    ? `${found.length || "no"} cell${found.length === 1 ? "" : "s"}`
    : "";
  if (found.length) change({ pick: data.cells.id[found[0]] });
}

function pressed(event) {
  const id = (event.shiftKey ? other() : null) ?? picked();
  if (id === null) return;
  if (event.key in MOVES) pick(moved(id, event.key), event.shiftKey);
  else if (event.key === "c") change({ other: firstCell(picked()) });
  else if (event.key === "Escape") clear();
  else return;
  event.preventDefault();
}

async function clear() {
  await change({ where: {}, brush: null, other: null });
  await drawMain(); // takes the frames of brushes away
  await redrawExplorers(EXPLORERS);
}

async function copyLink() {
  await navigator.clipboard?.writeText(location.href).catch(() => null);
  byId("link").textContent = "Copied";
  setTimeout(() => (byId("link").textContent = "Copy link"), 1500);
}

function setTheme(name) {
  root.dataset.theme = name;
  byId("theme").textContent = name === "dark" ? "Light" : "Dark";
}

function wire() {
  const options = (id, names) =>
    byId(id).replaceChildren(...names.map((name) => new Option(name.replaceAll("_", " "), name)));
  options("color", Object.keys(data.colors));
  options("a", numberNames());
  options("b", numberNames());
  for (const id of ["color", "a", "b"])
    byId(id).addEventListener("change", () => change({ [id]: byId(id).value }));
  byId("step").max = String(Math.max(0, data.steps.length - 1));
  byId("step").addEventListener("input", () => {
    const place = Number(byId("step").value);
    change({ step: place >= data.steps.length - 1 ? null : data.steps[place] });
  });
  byId("time").hidden = data.steps.length < 2;
  for (const [id, call] of Object.entries({
    play,
    clear,
    link: copyLink,
    csv: () => saveText(`${data.name}.csv`, asCsv(data, chosenCells(), state.step), "text/csv"),
  }))
    byId(id).addEventListener("click", call);
  byId("compare").addEventListener("click", () => change({ other: firstCell(picked()) }));
  byId("swap").addEventListener("click", () => change({ pick: state.other, other: firstCell(picked()) }));
  byId("find").addEventListener("input", find);
  byId("diagram").addEventListener("keydown", pressed);
  for (const box of document.querySelectorAll("[data-line]"))
    box.addEventListener("change", () => change({ hidden: toggled(state.hidden, box.dataset.line) }));
  const measures = curveNames().map((name) => {
    const box = element("input", {
      type: "checkbox",
      checked: curvesShown(state).includes(name),
      "data-curve": name,
    });
    box.addEventListener("change", () => change({ show: toggled(curvesShown(state), name) }));
    return element("label", {}, box, ` ${name.replaceAll("_", " ")}`);
  });
  byId("measures").replaceChildren(...measures);
  byId("theme").addEventListener("click", () => {
    setTheme(root.dataset.theme === "dark" ? "light" : "dark");
    drawAll();
  });
  const scales = {
    diagram: { "diagram.x": data.axes.x, "diagram.y": data.axes.y },
    curves: { curves: "values", steps: "steps" },
    scatter: { "scatter.x": "x", "scatter.y": "y" },
    parallel: {},
  };
  for (const id of sectionNames) scales[id] = { [`${id}.x`]: "x", [`${id}.y`]: "y" };
  for (const [id, own] of Object.entries(scales))
    tools(
      id,
      own,
      () => state,
      (name) => {
        change({ linear: toggled(state.linear, name) });
        if (sectionNames.includes(id)) drawSection(id, state);
      },
    );
  addEventListener("hashchange", () => {
    state = fromFragment(location.hash);
    checked();
    followed([...REDRAWN, "pick", "a"]);
  });
  let width = innerWidth,
    timer;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    clearTimeout(timer);
    timer = setTimeout(drawAll, 200);
  });
}

async function drawNear(id) {
  if (!EXPLORERS.includes(id)) return drawSection(id, state);
  await drawExplorer(id, state, kept, brushed, tooltip);
  return onBrush(id, brushChanged);
}

async function drawAll() {
  await drawMain();
  await drawCurves(compared(), state);
  const numbers = numberNames().length > 0;
  document.querySelector(".explore").hidden = !numbers;
  const rest = [...(numbers ? EXPLORERS : []), ...sectionNames];
  await Promise.all(rest.filter((id) => views[id]).map(drawNear));
  whenNear(
    rest.filter((id) => !views[id]),
    drawNear,
  );
  whileSeen(numbers ? EXPLORERS : [], (id, is) => {
    if (!is) return seen.delete(id);
    seen.add(id);
    return fillSeen();
  });
}

setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
checked();
wire();
read();
controls();
describe();
await drawAll();
document.body.dataset.shown = toFragment(state);
document.body.dataset.ready = "yes";
