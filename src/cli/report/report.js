"use strict";
// Text of the view goes into the page as text only: nothing here parses markup.
const data = JSON.parse(document.getElementById("data").textContent);
const FATES = ["kept", "added", "grafted", "changed", "scales"];
const MEANS = {
  kept: "as in the source", added: "from an extra, as it is there", grafted: "from a graft, as it is there, in the place of another",
  changed: "by operators", scales: "FP8 scales that the view computes",
};
const T = data.tensors;
const COUNT = T.name.length;
const $ = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made) made[key] = value; else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}
function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) { n /= 1024; unit += 1; }
  return `${unit ? n.toFixed(2) : n} ${units[unit]}`;
}
const number = (n) => n.toLocaleString("en-US");
const percent = (share) => `${(100 * share).toFixed(share < 0.001 && share > 0 ? 4 : 2)} %`;

// A table: columns are [title, class], rows are lists of texts or elements.
function fill(table, columns, rows, caption) {
  const heads = columns.map(([title, kind]) => element("th", { scope: "col", className: kind || "" }, title));
  const body = rows.map((row) => element("tr", {}, ...row.map((cell, i) =>
    element("td", { className: columns[i][1] || "" }, cell))));
  table.replaceChildren(
    ...(caption ? [element("caption", {}, caption)] : []),
    element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...body));
}
function swatch(fate) {
  return element("span", { className: "fate" }, element("i", { className: fate }), fate);
}
function layerOf(name) {
  const parts = name.split(".");
  const at = parts.findIndex((part) => /^\d+$/.test(part));
  return at < 0 ? "(none)" : parts.slice(0, at + 1).join(".");
}

// What becomes of the bytes.
const sums = FATES.map((fate) => data.counts[fate]);
const total = data.counts.total.bytes;
const counted = (n, noun) => `${number(n)} ${noun}${n === 1 ? "" : "s"}`;
function summary() {
  document.title = `${data.title} – ckptfs report`;
  $("title").textContent = data.title;
  const { before, shards, other_files: others } = data.counts;
  const whole = data.shards.filter((shard) => shard.whole_file !== null).length;
  $("subtitle").textContent = `${counted(COUNT, "tensor")} of ${bytes(total)} (${bytes(before.bytes)} before) in ${counted(shards.files, "shard")} of ${bytes(shards.bytes)} (${number(whole)} unchanged source ${whole === 1 ? "file" : "files"}), ${counted(others.files, "other file")} of ${bytes(others.bytes)}`;
  const tiles = FATES.map((fate, i) => element("div", { className: "tile" },
    element("b", {}, bytes(sums[i].bytes)),
    element("span", {}, element("i", { className: fate }), `${number(sums[i].tensors)} ${fate}`),
    element("br"), element("span", {}, MEANS[fate])));
  const bar = element("div", { className: "bar", role: "img" });
  bar.setAttribute("aria-label", FATES.map((fate, i) => `${fate} ${percent(total ? sums[i].bytes / total : 0)}`).join(", "));
  FATES.forEach((fate, i) => {
    const part = element("div", { className: fate, title: `${fate}: ${bytes(sums[i].bytes)}` });
    part.style.width = `${total ? 100 * sums[i].bytes / total : 0}%`;
    bar.append(part);
  });
  $("sum").append(element("div", { className: "tiles" }, ...tiles), bar);
  const remarks = data.counts.changed_by.map((by) =>
    element("li", {}, `${counted(by.tensors, "tensor")} changed by ${by.operators.join(" → ")}: ${bytes(by.bytes)}`));
  const changes = ["untied", "tied", "renamed", "dropped", "resized"].filter((what) => data[what]).map((what) => `${number(data[what])} ${what}`);
  if (changes.length) remarks.push(element("li", {}, `tensors: ${changes.join(", ")}`));
  if (data.edited_config) {
    const edits = Object.entries(data.edited_config.edits).map(([key, how]) => `${key} ${how}`);
    remarks.push(element("li", {}, `config.json: ${edits.join(", ")}`));
  }
  for (const edit of data.edits) remarks.push(element("li", {}, `edit: ${edit}`));
  for (const warning of data.warnings) remarks.push(element("li", { className: "warning" }, `warning[${warning.code}]: ${warning.text}`));
  for (const note of data.notes) remarks.push(element("li", {}, `note: ${note}`));
  $("remarks").append(...remarks);
  $("recipe").textContent = data.recipe;
  $("footer").textContent = `Written by ${data.program}. The page is one file, which loads nothing.`;
}

function sources() {
  let model = 0;
  const rows = data.sources.map((source) => [
    source.role === "model" && data.merge ? `model ${data.merge.models[model++]}` : source.role,
    source.path, number(source.tensors), number(source.added), number(source.overlapping),
    source.left_out.length ? `${number(source.left_out.length)}: ${source.left_out.slice(0, 3).join("; ")}${source.left_out.length > 3 ? "; …" : ""}` : "",
  ]);
  for (const adapter of data.adapters) {
    rows.push(["lora", adapter.path, `merged into ${number(adapter.merged)}`, `${number(adapter.replaced)} replaced`, `weight ${adapter.weight}`, ""]);
  }
  fill($("sources"), [["role", "nowrap"], ["directory", "name"], ["tensors", "number"], ["taken", "number"], ["overlapping", "number"], ["left out", ""]], rows,
    data.merge ? `merged by ${data.merge.method}; config and tokenizer of ${data.merge.files_of}` : "");
}

function kinds() {
  const SHOWN = 300;
  const shown = data.groups.slice(0, SHOWN);
  fill($("kinds"), [["name", "name"], ["tensors", "number"], ["bytes", "number"], ["dtype", "nowrap"], ["shape", "nowrap"], ["sources and steps", ""]],
    shown.map((kind) => [kind.name, number(kind.tensors), bytes(kind.bytes), kind.dtype, kind.shape, kind.way]));
  const more = data.groups.length - shown.length;
  $("kinds-more").textContent = more ? `${number(more)} kinds more; the table of tensors has all` : "";
}

// The map of shards. Tensors of a shard follow each other in T.
const starts = [];
for (let i = 0; i < COUNT; i += 1) if (i === 0 || T.shard[i] !== T.shard[i - 1]) starts[T.shard[i]] = i;
const MAP = { rows: Math.min(data.shards.length, 4000), longest: data.shards.reduce((most, s) => Math.max(most, s.len), 1), row: 0 };
function draw() {
  const canvas = $("map");
  const scale = window.devicePixelRatio || 1;
  const width = canvas.parentElement.clientWidth || 1000;
  MAP.row = MAP.rows > 1000 ? 4 : MAP.rows > 100 ? 8 : MAP.rows > 30 ? 12 : 20;
  canvas.style.height = `${MAP.rows * MAP.row}px`;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.min(Math.round(MAP.rows * MAP.row * scale), 32000);
  const context = canvas.getContext("2d");
  context.setTransform(canvas.width / width, 0, 0, canvas.height / (MAP.rows * MAP.row), 0, 0);
  const style = getComputedStyle(document.documentElement);
  const colors = FATES.map((fate) => style.getPropertyValue(`--${fate}`).trim());
  const header = style.getPropertyValue("--header").trim();
  const gap = MAP.row > 6 ? 2 : 1;
  for (let shard = 0; shard < MAP.rows; shard += 1) {
    const y = shard * MAP.row;
    context.fillStyle = header;
    context.fillRect(0, y, width * data.shards[shard].len / MAP.longest, MAP.row - gap);
    // Neighbors of one color are drawn together, up to where there is room for a line between them.
    let begin = null, fate = null;
    const flush = (end) => {
      if (begin === null) return;
      context.fillStyle = colors[fate];
      context.fillRect(begin, y, Math.max(end - begin, 0.3), MAP.row - gap);
    };
    for (let i = starts[shard] ?? COUNT; i < COUNT && T.shard[i] === shard; i += 1) {
      const x = width * T.offset[i] / MAP.longest;
      const isRoom = MAP.row > 6 && x - begin > 3;
      if (begin === null || T.fate[i] !== fate || isRoom) {
        flush(begin !== null && isRoom ? x - 0.5 : x);
        begin = x;
        fate = T.fate[i];
      }
    }
    flush(width * data.shards[shard].len / MAP.longest);
  }
}
function under(event) {
  const box = $("map").getBoundingClientRect();
  const shard = Math.floor((event.clientY - box.top) / MAP.row);
  if (shard < 0 || shard >= MAP.rows) return null;
  const offset = (event.clientX - box.left) / box.width * MAP.longest;
  // The last tensor that begins before the place.
  let low = starts[shard] ?? COUNT, high = low;
  while (high < COUNT && T.shard[high] === shard) high += 1;
  const first = low;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (T.offset[middle] <= offset) low = middle + 1; else high = middle;
  }
  const tensor = low > first && offset < T.offset[low - 1] + T.len[low - 1] ? low - 1 : null;
  return { shard, tensor, inside: offset < data.shards[shard].len };
}
function map() {
  $("legend").append(...FATES.map((fate) => element("span", {}, element("i", { className: fate }), `${fate}: ${MEANS[fate]}`)));
  const canvas = $("map");
  canvas.addEventListener("mousemove", (event) => {
    const at = under(event);
    if (!at) return;
    const { name, len } = data.shards[at.shard];
    const what = at.tensor !== null
      ? `${T.name[at.tensor]} – ${data.dtypes[T.dtype[at.tensor]]} ${data.shapes[T.shape[at.tensor]]}, ${bytes(T.len[at.tensor])}, ${FATES[T.fate[at.tensor]]}`
      : at.inside ? "header" : "";
    $("map-at").textContent = `${name} (${bytes(len)})  ${what}`;
  });
  canvas.addEventListener("click", (event) => {
    const at = under(event);
    if (!at) return;
    $("shard").value = String(at.shard);
    search();
    $("h-tensors").scrollIntoView({ behavior: "smooth" });
  });
  draw();
  window.addEventListener("resize", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  const SHOWN = 2000;
  fill($("shards"), [["shard", "name"], ["bytes", "number"], ["is the source file", "name"]],
    data.shards.slice(0, SHOWN).map((shard) => [shard.name, bytes(shard.len), shard.whole_file ?? ""]),
    data.shards.length > SHOWN ? `the first ${number(SHOWN)} shards` : "");
  fill($("files"), [["other file", "name"], ["bytes", "number"], ["is the source file", "name"]],
    data.files.slice(0, SHOWN).map((file) => [file.path, bytes(file.len), file.from ?? "new"]),
    data.files.length > SHOWN ? `the first ${number(SHOWN)} of ${number(data.files.length)} other files` : "");
}

// Columns over layers: `values` are lists of parts to be stacked, each [class, value].
const CHART = { height: 150, left: 92, bottom: 26, top: 10 };
function frame(count, least, most, format, label) {
  const step = Math.max(3, Math.min(40, Math.floor(1040 / Math.max(count, 1))));
  const width = CHART.left + count * step + 10;
  const root = svg("svg", { width, height: CHART.height + CHART.top + CHART.bottom, role: "img", "aria-label": label });
  for (const share of [0, 0.5, 1]) {
    const y = CHART.top + CHART.height * (1 - share);
    root.append(svg("line", { class: "axis", x1: CHART.left, x2: width, y1: y, y2: y }),
      svg("text", { x: CHART.left - 6, y: y + 4, "text-anchor": "end" }, format(least + (most - least) * share)));
  }
  return { root, step, x: (i) => CHART.left + i * step, y: (value) => CHART.top + CHART.height * (1 - (value - least) / (most - least)) };
}
function tick(chart, i, count, name) {
  const every = Math.ceil(count / Math.max(1, Math.floor(count * chart.step / 34)));
  if (i % every) return;
  const short = /^\(none\)$/.test(name) ? "–" : name.split(".").pop();
  chart.root.append(svg("text", { x: chart.x(i) + chart.step / 2, y: CHART.top + CHART.height + 16, "text-anchor": "middle" }, short));
}
const MOST_LAYERS = 2000;
function layers() {
  const found = new Map();
  for (let i = 0; i < COUNT; i += 1) {
    const layer = layerOf(T.name[i]);
    if (!found.has(layer)) found.set(layer, FATES.map(() => 0));
    found.get(layer)[T.fate[i]] += T.len[i];
  }
  const list = [...found].sort((a, b) => a[0].localeCompare(b[0], "en", { numeric: true })).slice(0, MOST_LAYERS);
  const sum = (parts) => parts.reduce((a, b) => a + b, 0);
  const most = Math.max(1, list.reduce((m, [, parts]) => Math.max(m, sum(parts)), 0));
  const chart = frame(list.length, 0, most, (n) => bytes(Math.round(n)), "Bytes by layer");
  list.forEach(([name, parts], i) => {
    let base = 0;
    const column = svg("g", {}, svg("title", {}, `${name}: ${FATES.map((f, k) => (parts[k] ? `${f} ${bytes(parts[k])}` : "")).filter(Boolean).join(", ")}`));
    parts.forEach((part, k) => {
      if (!part) return;
      const y = chart.y(base + part);
      column.append(svg("rect", { class: FATES[k], x: chart.x(i) + 0.5, width: Math.max(1, chart.step - 2), y, height: Math.max(0.5, chart.y(base) - y) }));
      base += part;
    });
    chart.root.append(column);
    tick(chart, i, list.length, name);
  });
  $("layers").append(chart.root, element("p", { className: "hint" },
    `${number(found.size)} layers, by the name up to its first number; – is what is in none.${found.size > MOST_LAYERS ? ` The first ${number(MOST_LAYERS)} are shown.` : ""}`));
}

const decibels = (db) => (db === null ? "exact" : db.toFixed(2));
function errorRow(name, tensors, [sqnr, relative, block, flushed, saturated, bits]) {
  return [name ?? "(none)", number(tensors), bits.toFixed(3), decibels(sqnr), relative.toFixed(5), block.toFixed(5), percent(flushed), percent(saturated)];
}
function errors() {
  const box = $("errors");
  if (!data.errors) {
    const what = data.quantized ? "It was not measured. ckptfs report … --errors measures it, for which it reads all that is quantized." : "This view quantizes nothing.";
    box.append(element("p", {}, what));
    return;
  }
  const { layers: byLayer, modules, total: all } = data.errors;
  const shown = byLayer.slice(0, MOST_LAYERS);
  const values = shown.map(([, , figures]) => figures[0]).filter((db) => db !== null);
  if (values.length) {
    // Differences are small: the scale is around them, of two decibels at least.
    const middle = (Math.min(...values) + Math.max(...values)) / 2;
    const reach = Math.max(1, 1.2 * (Math.max(...values) - middle));
    const chart = frame(shown.length, middle - reach, middle + reach, (db) => `${db.toFixed(1)} dB`, "Signal-to-quantization-noise ratio by layer, in dB");
    shown.forEach(([name, tensors, figures], i) => {
      tick(chart, i, shown.length, name ?? "(none)");
      if (figures[0] === null) return;
      const x = chart.x(i) + chart.step / 2;
      chart.root.append(svg("g", {}, svg("title", {}, `${name ?? "(none)"}: ${decibels(figures[0])} dB, ${number(tensors)} tensors`),
        svg("line", { class: "stem", x1: x, x2: x, y1: CHART.top + CHART.height, y2: chart.y(figures[0]) }),
        svg("circle", { class: "mark", cx: x, cy: chart.y(figures[0]), r: Math.min(4, Math.max(2, chart.step / 3)) })));
    });
    box.append(element("h3", {}, "SQNR by layer (dB; more is better)"), element("div", { className: "scroll" }, chart.root));
  }
  const columns = [["", "name"], ["tensors", "number"], ["bits", "number"], ["SQNR dB", "number"], ["rel err", "number"], ["err/amax", "number"], ["flushed", "number"], ["saturated", "number"]];
  const table = element("table");
  fill(table, columns, [...modules.map((row) => errorRow(...row)), errorRow("total", modules.reduce((n, row) => n + row[1], 0), all)]);
  box.append(element("h3", {}, "By kind of module"), element("div", { className: "scroll" }, table),
    element("p", { className: "hint" }, "bits: bits of codes, scales and zero points for each element. SQNR: signal-to-quantization-noise ratio. rel err: largest error relative to the value, among values with a normal code. err/amax: largest error relative to the largest magnitude of its block. flushed: share of codes of zero for values that are not. saturated: share of codes at an end of the range."));
}

function difference() {
  if (!data.diff) return;
  const { from, equal, different, rows, rows_left_out: more, files_equal: filesEqual, files } = data.diff;
  $("diff").hidden = false;
  $("h-diff").textContent = `What is different from ${from}`;
  const table = element("table");
  fill(table, [["", "nowrap"], ["name", "name"], ["tensors", "number"], ["dtype and shape", ""], ["values", ""]],
    rows.map(([what, name, count, header, values]) => [what, name, number(count), header, values]));
  $("diff-body").append(
    element("p", {}, `${number(equal)} tensors are equal, ${number(different)} are not; ${number(filesEqual)} other files are equal, ${number(files.length)} are not.`),
    element("div", { className: "scroll" }, table));
  if (more) $("diff-body").append(element("p", { className: "hint" }, `${number(more)} kinds more; ckptfs diff --json lists all`));
  for (const [what, path, keys] of files) {
    $("diff-body").append(element("h3", {}, `${what}: ${path}`));
    if (!keys.length) continue;
    const table = element("table");
    fill(table, [["key", "name"], ["there", "name"], ["in the view", "name"]], keys);
    $("diff-body").append(element("div", { className: "scroll" }, table));
  }
}

// The table of tensors.
const PAGE = 100;
const table = { rows: [], page: 0, sort: null, ascending: true, open: new Set() };
const collator = new Intl.Collator("en", { numeric: true });
const sqnr = (i) => (data.errors && data.errors.tensors[i] ? data.errors.tensors[i][0] ?? Infinity : -Infinity);
const COLUMNS = [
  ["name", "name", (i) => T.name[i], (a, b) => collator.compare(T.name[a], T.name[b])],
  ["fate", "nowrap", (i) => swatch(FATES[T.fate[i]]), (a, b) => T.fate[a] - T.fate[b]],
  ["dtype", "nowrap", (i) => data.dtypes[T.dtype[i]], (a, b) => T.dtype[a] - T.dtype[b]],
  ["shape", "nowrap", (i) => data.shapes[T.shape[i]], (a, b) => collator.compare(data.shapes[T.shape[a]], data.shapes[T.shape[b]])],
  ["bytes", "number", (i) => number(T.len[i]), (a, b) => T.len[a] - T.len[b]],
  ["shard", "name", (i) => data.shards[T.shard[i]].name, (a, b) => T.shard[a] - T.shard[b]],
  ...(data.errors ? [["SQNR dB", "number", (i) => (data.errors.tensors[i] ? decibels(data.errors.tensors[i][0]) : ""), (a, b) => (sqnr(a) < sqnr(b) ? -1 : sqnr(a) > sqnr(b) ? 1 : 0)]] : []),
];
// What a search looks at beside the name: the same for all tensors of a way, a file, a dtype.
const lower = (list) => list.map((text) => text.toLowerCase());
const texts = { name: null, ways: lower(data.ways), dtypes: lower(data.dtypes), files: lower(data.source_files.map((f) => f.join(" "))) };
function matcher(query) {
  const expression = /^\/(.*)\/$/.exec(query);
  if (expression) {
    let regex;
    try { regex = new RegExp(expression[1]); } catch { return null; }
    return (i) => regex.test(T.name[i]);
  }
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  texts.name ??= lower(T.name);
  const hits = words.map((word) => ({
    word,
    ways: texts.ways.map((text) => text.includes(word)),
    dtypes: texts.dtypes.map((text) => text.includes(word)),
    files: texts.files.map((text) => text.includes(word)),
  }));
  return (i) => hits.every(({ word, ways, dtypes, files }) => texts.name[i].includes(word)
    || ways[T.way[i]] || dtypes[T.dtype[i]] || T.from[i][0].some(([file]) => files[file]));
}
function search() {
  const matches = matcher($("q").value.trim());
  const fate = $("fate").value, shard = $("shard").value;
  $("q").setAttribute("aria-invalid", String(matches === null));
  table.rows = [];
  for (let i = 0; matches && i < COUNT; i += 1) {
    if ((fate === "" || T.fate[i] === +fate) && (shard === "" || T.shard[i] === +shard) && matches(i)) table.rows.push(i);
  }
  if (table.sort !== null) {
    const compare = COLUMNS[table.sort][3];
    const sign = table.ascending ? 1 : -1;
    table.rows.sort((a, b) => sign * compare(a, b) || a - b);
  }
  table.page = 0;
  const found = table.rows.reduce((sum, i) => sum + T.len[i], 0);
  $("found").textContent = matches === null ? "not a regular expression" : `${number(table.rows.length)} of ${number(COUNT)} tensors, ${bytes(found)}`;
  show();
}
function sortBy(column) {
  table.ascending = table.sort === column ? !table.ascending : true;
  table.sort = column;
  search();
}
function detail(i) {
  const [from, more] = T.from[i];
  const list = element("dl", {});
  const say = (what, text) => list.append(element("dt", {}, what), element("dd", {}, text));
  for (const [file, name, begin, end] of from) {
    const [label, path] = data.source_files[file];
    say("from", `${label}: ${name === 0 ? T.name[i] : name} – ${path}, bytes ${number(begin)} to ${number(end)}`);
  }
  if (more) say("from", `${number(more)} tensors more; ckptfs plan --json --provenance lists all`);
  say("steps", data.ways[T.way[i]] || "none: the bytes of the source");
  say("in the view", `${data.shards[T.shard[i]].name}, bytes ${number(T.offset[i])} to ${number(T.offset[i] + T.len[i])}`);
  const measured = data.errors && data.errors.tensors[i];
  if (measured) say("error", `${measured[5].toFixed(3)} bits, SQNR ${decibels(measured[0])} dB, rel err ${measured[1].toFixed(5)}, err/amax ${measured[2].toFixed(5)}, flushed ${percent(measured[3])}, saturated ${percent(measured[4])}`);
  return element("tr", { className: "detail" }, element("td", { colSpan: COLUMNS.length }, list));
}
function show() {
  const pages = Math.max(1, Math.ceil(table.rows.length / PAGE));
  const head = element("tr", {}, ...COLUMNS.map(([title, kind], column) => {
    const button = element("button", { type: "button" }, title);
    button.addEventListener("click", () => { sortBy(column); $("tensors").querySelectorAll("th button")[column].focus(); });
    const cell = element("th", { scope: "col", className: kind === "number" ? kind : "" }, button);
    cell.setAttribute("aria-sort", table.sort !== column ? "none" : table.ascending ? "ascending" : "descending");
    return cell;
  }));
  const body = element("tbody");
  for (const i of table.rows.slice(table.page * PAGE, (table.page + 1) * PAGE)) {
    const row = element("tr", { className: "row" });
    for (const [, kind, text] of COLUMNS) row.append(element("td", { className: kind }, text(i)));
    const opener = element("button", { type: "button" }, T.name[i]);
    opener.setAttribute("aria-expanded", String(table.open.has(i)));
    row.firstChild.replaceChildren(opener);
    row.addEventListener("click", () => {
      if (table.open.delete(i)) row.nextSibling.remove();
      else { table.open.add(i); row.after(detail(i)); }
      opener.setAttribute("aria-expanded", String(table.open.has(i)));
    });
    body.append(row);
    if (table.open.has(i)) body.append(detail(i));
  }
  $("tensors").replaceChildren(element("thead", {}, head), body);
  $("page").textContent = `page ${number(table.page + 1)} of ${number(pages)}`;
  $("first").disabled = $("previous").disabled = table.page === 0;
  $("last").disabled = $("next").disabled = table.page >= pages - 1;
}
function tensors() {
  $("fate").append(element("option", { value: "" }, "all"), ...FATES.map((fate, i) => element("option", { value: String(i) }, `${fate} (${number(sums[i].tensors)})`)));
  $("shard").append(element("option", { value: "" }, "all"), ...data.shards.map((shard, i) => element("option", { value: String(i) }, shard.name)));
  let waiting;
  $("q").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(search, 120); });
  $("fate").addEventListener("change", search);
  $("shard").addEventListener("change", search);
  $("search").addEventListener("submit", (event) => { event.preventDefault(); search(); });
  const turn = (to) => () => { table.page = to(Math.ceil(table.rows.length / PAGE) - 1); show(); };
  $("first").addEventListener("click", turn(() => 0));
  $("previous").addEventListener("click", turn(() => Math.max(0, table.page - 1)));
  $("next").addEventListener("click", turn((last) => Math.min(last, table.page + 1)));
  $("last").addEventListener("click", turn((last) => last));
  search();
}

summary();
sources();
kinds();
map();
layers();
errors();
difference();
tensors();
