// Drawing a specification of the page: its data, its theme, its scales, and what it looks like as a file.

export const data = JSON.parse(document.getElementById("data").textContent);
export const byId = (id) => document.getElementById(id);
export const clone = (value) => JSON.parse(JSON.stringify(value));
export const views = {};
const root = document.documentElement;

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes))
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== false && value !== null) made.setAttribute(key, value === true ? "" : value);
  made.append(...children);
  return made;
}

export function shown(value) {
  if (typeof value !== "number") return String(value ?? "–");
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
  return Number.isFinite(value) ? String(Number(value.toPrecision(3))) : "–";
}

// A column as people call it.
export const wordsOf = (name) => data.words[name]?.[0] ?? name.replaceAll("_", " ");

function themed(spec) {
  const style = getComputedStyle(root);
  for (const param of spec.params ?? []) {
    const value = style.getPropertyValue(`--${param.name}`).trim();
    if (value) param.value = value;
  }
  return spec;
}

// Panels side by side as the place allows: `around` is the room of axes and labels.
export function arranged(spec, id, around, least, most) {
  const room = byId(id).clientWidth - 16;
  const panels = spec.concat.length;
  const fitting = Math.max(1, Math.min(panels, Math.floor(room / (least + around))));
  const columns = Math.ceil(panels / Math.ceil(panels / fitting)); // three and two rather than four and one
  const width = Math.max(60, Math.min(most, Math.floor(room / columns - around)));
  spec.columns = columns;
  for (const panel of spec.concat) {
    panel.height = Math.round(panel.height * (width / panel.width));
    panel.width = width;
  }
  return spec;
}

// The specification with a linear scale in place of a logarithmic one in these channels.
export function linearized(spec, channels) {
  const visit = (value) => {
    if (!value || typeof value !== "object") return;
    for (const channel of channels) {
      const { scale, axis } = value.encoding?.[channel] ?? {};
      if (scale?.type !== "log") continue;
      Object.assign(scale, { type: "linear", zero: false });
      delete axis?.values; // those of decades, which crowd at the lower end
    }
    Object.values(value).forEach(visit);
  };
  visit(spec);
  return spec;
}

// Where panels share a scale, the legend of one is that of all: Vega-Lite warns of panels that have none.
function withOneLegend(spec) {
  for (const channel of ["color", "shape", "strokeDash"]) {
    if (spec.resolve?.scale?.[channel] === "independent") continue;
    const layers = (spec.concat ?? []).flatMap((panel) => panel.layer ?? [panel]);
    const encoded = layers
      .map((layer) => layer.encoding?.[channel])
      .filter((one) => one?.legend !== undefined);
    const legend = encoded.find((one) => one.legend)?.legend;
    if (legend) encoded.forEach((one) => (one.legend = legend));
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

// `place` is where the tooltip stands, in the options of vega-tooltip.
export async function draw(id, spec, tooltip, place = {}) {
  const datasets = spec.datasets ?? {};
  for (const name of named(spec, new Set())) datasets[name] ??= data.datasets[name];
  spec.datasets = datasets;
  views[id]?.finalize();
  const options = { actions: false, renderer: "svg", ast: true };
  if (tooltip) options.tooltip = { formatTooltip: tooltip, ...place };
  views[id] = await vegaEmbed(byId(id), themed(withOneLegend(spec)), options);
  return views[id].view;
}

export function save(name, url) {
  element("a", { href: url, download: name }).click();
}

export function saveText(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  save(name, url);
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

export async function saveChart(id, format) {
  const { view } = views[id];
  const name = `${data.name}-${id}.${format}`;
  if (format === "svg") saveText(name, await view.toSVG(), "image/svg+xml");
  else save(name, await view.toImageURL("png", 2));
}
