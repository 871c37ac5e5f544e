// The controls above and beside the diagram: what they show of the state, and what they change in it.

import { byId, data, element, saveText, wordsOf } from "./charts.js";
import { curveNames, curvesShown } from "./curves.js";
import { numberNames, scatterAxes } from "./explore.js";
import { drawFilters, filterWords, foundCells } from "./filters.js";
import { sectionNames, tools } from "./sections.js";
import { asCsv } from "./table.js";

const root = document.documentElement;
const PLAY_MS = 500;
const SAID_MS = 1500; // how long a button says what it did

// `page` is the page as page.js has it: its state, what is read from it, and `change`.
export function showControls(page) {
  const { state, brushed } = page;
  byId("color").value = state.color;
  const place = state.step === null ? data.steps.length - 1 : data.steps.indexOf(state.step);
  byId("step").value = String(place);
  byId("at").textContent = state.step === null ? `${data.steps.at(-1) ?? ""} (end)` : String(state.step);
  byId("step").setAttribute("aria-valuetext", byId("at").textContent);
  const words = filterWords(state);
  byId("filtered").textContent = words ? `Filter: ${words}` : "Filter";
  byId("selected").textContent = chosenWords(page, words);
  byId("refused").hidden = true; // the address was that of the view before
  byId("clear").disabled = !(words || brushed || state.other);
  const untimed =
    state.step !== null && state.color !== "regime" && !data.curves.measures.includes(state.color);
  byId("untimed").textContent = untimed ? `${state.color} was measured at the end only.` : "";
  for (const box of document.querySelectorAll("[data-line]"))
    box.checked = !state.hidden.includes(box.dataset.line);
  for (const box of document.querySelectorAll("[data-curve]"))
    box.checked = curvesShown(state).includes(box.dataset.curve);
  const names = scatterAxes(state);
  for (const axis of ["a", "b"]) byId(axis).value = names[axis];
  byId("swap").disabled = page.other() === null;
  byId("compare").disabled = page.picked() === null;
  keepFocus(() =>
    drawFilters(state, (key, values) => page.change({ where: { ...state.where, [key]: values } })),
  );
}

function chosenWords(page, words) {
  const all = data.cells.id.length;
  if (!words && !page.brushed) return `${all} cell${all === 1 ? "" : "s"}.`;
  if (page.picked() === null) return `0 of ${all} cells: no cell matches the filter.`;
  const whole = page.isWhole() ? "" : " The lines are of all seeds and hidden while a filter parts them.";
  return `${page.chosenCells().length} of ${all} cells${page.brushed ? " brushed" : ""}.${whole}`;
}

function keepFocus(redraw) {
  const { key, value } = document.activeElement?.dataset ?? {};
  redraw();
  if (key)
    document.querySelector(`[data-key="${CSS.escape(key)}"][data-value="${CSS.escape(value)}"]`)?.focus();
}

const toggled = (list, name) => (list.includes(name) ? list.filter((one) => one !== name) : [...list, name]);

// A button that goes through the steps once, and stops when it is pressed again.
function player(page) {
  let playing;
  const stop = () => {
    clearInterval(playing);
    playing = undefined;
    byId("play").textContent = "Play";
  };
  return () => {
    if (playing !== undefined) return stop();
    byId("play").textContent = "Pause";
    const { step } = page.state;
    let place = step === null ? 0 : data.steps.indexOf(step) + 1;
    const next = () => {
      const last = place >= data.steps.length - 1;
      page.change({ step: last ? null : data.steps[place++] });
      if (last) stop();
    };
    playing = setInterval(next, PLAY_MS);
    next();
  };
}

function find(page) {
  const text = byId("find").value;
  const found = foundCells(text);
  const words = `${found.length || "no"} cell${found.length === 1 ? "" : "s"}`;
  byId("found").textContent = text.trim() ? words : "";
  if (found.length) page.change({ pick: data.cells.id[found[0]] });
}

// A browser may refuse the clipboard: the address is then shown, chosen whole, to be copied by hand.
async function copyLink() {
  const copied = await navigator.clipboard?.writeText(location.href).then(
    () => true,
    () => false,
  );
  byId("refused").hidden = Boolean(copied);
  byId("link").textContent = copied ? "Copied" : "Copy link";
  if (!copied) return showAddress();
  setTimeout(() => (byId("link").textContent = "Copy link"), SAID_MS);
}

function showAddress() {
  byId("refused").firstElementChild.textContent =
    "The browser refuses the clipboard; the address of this view:";
  byId("address").value = location.href;
  byId("address").select();
}

export function setTheme(name) {
  root.dataset.theme = name;
  byId("theme").textContent = name === "dark" ? "Light" : "Dark";
}

export function wireControls(page) {
  const options = (id, names) =>
    byId(id).replaceChildren(...names.map((name) => new Option(wordsOf(name), name)));
  options("color", Object.keys(data.colors));
  options("a", numberNames());
  options("b", numberNames());
  for (const id of ["color", "a", "b"])
    byId(id).addEventListener("change", () => page.change({ [id]: byId(id).value }));
  byId("step").max = String(Math.max(0, data.steps.length - 1));
  byId("step").addEventListener("input", () => {
    const place = Number(byId("step").value);
    page.change({ step: place >= data.steps.length - 1 ? null : data.steps[place] });
  });
  byId("time").hidden = data.steps.length < 2;
  const csv = () => asCsv(data, page.chosenCells(), page.state.step);
  for (const [id, call] of Object.entries({
    play: player(page),
    clear: page.clear,
    link: copyLink,
    csv: () => saveText(`${data.name}.csv`, csv(), "text/csv"),
    compare: () => page.change({ other: page.nameOf(page.picked()) }),
    swap: () => page.change({ pick: page.state.other, other: page.nameOf(page.picked()) }),
    theme: () => {
      setTheme(root.dataset.theme === "dark" ? "light" : "dark");
      page.drawAll();
    },
  }))
    byId(id).addEventListener("click", call);
  byId("find").addEventListener("input", () => find(page));
  for (const box of document.querySelectorAll("[data-line]"))
    box.addEventListener("change", () =>
      page.change({ hidden: toggled(page.state.hidden, box.dataset.line) }),
    );
  wireCharts(page);
}

// Which curves are drawn, and the buttons of each chart.
function wireCharts(page) {
  const measures = curveNames().map((name) => {
    const box = element("input", { type: "checkbox", "data-curve": name });
    box.addEventListener("change", () =>
      page.change({ show: toggled(curvesShown(page.state), box.dataset.curve) }),
    );
    return element("label", {}, box, ` ${wordsOf(name)}`);
  });
  byId("measures").replaceChildren(...measures);
  const scales = {
    diagram: { "diagram.x": data.axes.x, "diagram.y": data.axes.y },
    curves: { curves: "values", steps: "steps" },
    scatter: { "scatter.x": "x", "scatter.y": "y" },
    parallel: {},
  };
  for (const id of sectionNames) scales[id] = { [`${id}.x`]: "x", [`${id}.y`]: "y" };
  for (const [id, own] of Object.entries(scales)) {
    const toggle = (name) => {
      page.change({ linear: toggled(page.state.linear, name) });
      if (sectionNames.includes(id)) page.drawNear(id);
    };
    tools(id, own, () => page.state, toggle);
  }
}
