// The page: one state, which every control changes and every chart follows.

import { byId, data, views } from "./charts.js";
import { setTheme, showControls, wireControls } from "./controls.js";
import { drawCurves, markStep } from "./curves.js";
import { tooltipOf } from "./describe.js";
import { drawDiagram, fillDiagram, isTooWide } from "./diagram.js";
import { brushedCells, drawExplorer, fillExplorer, numberNames, onBrush, scatterAxes } from "./explore.js";
import { showExtremes } from "./extremes.js";
import { followJumps } from "./jumps.js";
import { MOVES, moved } from "./keys.js";
import { curvesOf, describePoints } from "./panel.js";
import { markScrolling } from "./scrolling.js";
import { drawSection, sectionNames, whenNearOrIdle, whileSeen } from "./sections.js";
import { fromFragment, toFragment } from "./state.js";
import { atPoints, keptCells } from "./table.js";

const EXPLORERS = ["scatter", "parallel"];
let state = fromFragment(location.hash);
let kept, points, brushed;

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
  showControls(page);
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
  do {
    await drawDiagram(state, tooltip);
    await fillMain();
  } while (isTooWide());
  listen();
}

// Charts of single cells that nobody sees are filled when they come into view.
const seen = new Set();
const stale = new Set();

const fillSeen = () => fillStale(EXPLORERS.filter((id) => seen.has(id)));

function fillStale(ids) {
  const old = ids.filter((id) => stale.delete(id));
  return Promise.all(old.map((id) => fillExplorer(id, state, kept, brushed)));
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

function describe() {
  describePoints(picked(), other(), points, state);
  const ends = { extremes: state.color, "scatter-extremes": scatterAxes(state).b };
  for (const [id, name] of Object.entries(ends))
    showExtremes(id, kept, name, state.step, (cell) => change({ pick: cell }));
}

const compared = () => curvesOf(picked(), other(), points, brushed);

// -- controls ----------------------------------------------------------------------------------------------------

const page = {
  get state() {
    return state;
  },
  get brushed() {
    return brushed;
  },
  picked,
  other,
  chosenCells,
  isWhole,
  nameOf: firstCell,
  change,
  clear,
  drawAll,
  drawNear,
};

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

function wire() {
  wireControls(page);
  followJumps();
  byId("diagram").addEventListener("keydown", pressed);
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
  addEventListener("beforeprint", () => fillStale(EXPLORERS));
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
  for (const node of document.querySelectorAll('.explore, [href="#single-cells"]')) node.hidden = !numbers;
  const rest = [...(numbers ? EXPLORERS : []), ...sectionNames];
  await Promise.all(rest.filter((id) => views[id]).map(drawNear));
  whenNearOrIdle(
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
showControls(page);
describe();
await drawAll();
markScrolling();
document.body.dataset.shown = toFragment(state);
performance.mark("ready"); // what comes after, nobody waits for
document.body.dataset.ready = "yes";
