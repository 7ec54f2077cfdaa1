"use strict";
// The script of the page of a search: `report.html`. It draws the figures and the table of trials from the data in the
// page. On a page that `search watch` serves it also takes in what is new, and sends requests to the search.
// Text of a search reaches the page as text alone (`textContent`), or escaped by the server.
(() => {
const live = !!document.getElementById("controls");
const token = location.hash.slice(1);
const element = id => document.getElementById(id);
const read = page => page.getElementById("data").textContent;
let source = read(document), data = JSON.parse(source);

function make(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Figures. Each is drawn when it comes near the window, and again when its data has changed.

const drawn = new WeakMap(); // the JSON of the figure in an element
const chosen = {}, scaled = {}; // by drawing: the figure that is shown, and the types of axes that a person chose
const seen = new Set();
const coarse = matchMedia("(pointer: coarse)").matches;

function labelled(trace) {
  if (trace.hoverinfo === "skip") return trace;
  const about = (trace.customdata || []).map((number, i) => {
    const own = trace.text ? trace.text[i] : "";
    return own ? `${own}<br>${data.hover[number] ?? ""}` : data.hover[number] ?? "";
  });
  return {...trace, ...(about.length ? {text: about} : {}), hovertemplate: "%{text}<extra></extra>"};
}

function drawFigure(box, figure, types) {
  const text = JSON.stringify([figure, types]);
  if (drawn.get(box) === text) return;
  const first = !drawn.has(box);
  drawn.set(box, text);
  const layout = {...figure.layout, uirevision: "same", ...(coarse ? {dragmode: false} : {})};
  for (const [axis, type] of Object.entries(types))
    layout[axis] = {...layout[axis], type, tickvals: null, ticktext: null, range: null, autorange: true};
  box.style.height = `${layout.height}px`;
  const start = performance.now();
  Plotly.react(box, figure.data.map(labelled), layout, {responsive: true, displayModeBar: false});
  performance.measure("figure", {start});
  if (first) box.on("plotly_click", event => {
    const number = event.points[0].customdata;
    if (number !== undefined) openTrial(number);
  });
}

function draw(container) {
  const id = container.dataset.drawing, drawing = data.figures[id];
  if (!drawing) return;
  const plots = drawing.names.length ? [drawing.plots[chosen[id] ?? 0] ?? drawing.plots[0]] : drawing.plots;
  while (container.children.length > plots.length) container.lastChild.remove();
  while (container.children.length < plots.length) container.append(make("div"));
  plots.forEach((figure, i) => drawFigure(container.children[i], figure, scaled[id] ?? {}));
}

function offerChoices(container) {
  const id = container.dataset.drawing, drawing = data.figures[id], before = container.previousElementSibling;
  if (!drawing || before.matches(".choices")) return;
  const choices = make("p", {className: "choices screen"});
  if (drawing.names.length > 1) {
    const list = make("select", {className: "choose", ariaLabel: "hyperparameters"});
    drawing.names.forEach((name, i) => list.append(make("option", {value: i, textContent: name})));
    list.addEventListener("change", () => { chosen[id] = +list.value; draw(container); });
    choices.append(list);
  }
  if (drawing.scales) for (const axis of ["xaxis", "yaxis"]) {
    const box = make("input", {type: "checkbox", checked: drawing.plots[0].layout[axis].type === "log"});
    box.addEventListener("change", () => {
      scaled[id] = {...scaled[id], [axis]: box.checked ? "log" : "linear"};
      draw(container);
    });
    choices.append(make("label", {className: "choose"}, box, ` logarithmic ${axis[0]} axis`));
  }
  if (choices.childElementCount) container.before(choices);
}

const near = new IntersectionObserver(entries => {
  for (const {target, isIntersecting} of entries) {
    if (isIntersecting) { seen.add(target); draw(target); } else seen.delete(target);
  }
}, {rootMargin: "400px"});

function drawAll(every) {
  for (const container of document.querySelectorAll("[data-drawing]")) {
    offerChoices(container);
    near.observe(container);
    if (every || seen.has(container)) draw(container);
  }
}

// The table of trials: sorted by a click on a heading, filtered by words and comparisons such as `lr<0.01`.

const SHOWN = 200;
let order = null, up = true, everything = false;

function key(row, column) { return row.keys[column] ?? row.cells[column]; }

function matcher(word) {
  const comparison = /^(.+?)(<=|>=|=|<|>)(.+)$/.exec(word);
  const column = comparison ? data.trials.heads.indexOf(comparison[1]) : -1;
  if (column < 0) return row => row.cells.some(cell => cell.toLowerCase().includes(word.toLowerCase()));
  const [, , sign, wanted] = comparison;
  return row => {
    const value = key(row, column), numeric = value !== "" && !isNaN(value) && !isNaN(wanted);
    if (value === "") return false;
    if (sign === "=") return numeric ? +value === +wanted || row.cells[column] === wanted : value === wanted;
    if (!numeric) return false;
    const difference = value - wanted;
    return sign === "<" ? difference < 0 : sign === ">" ? difference > 0 : sign === "<=" ? difference <= 0 : difference >= 0;
  };
}

function fillTable() {
  const {heads, rows} = data.trials, table = document.querySelector(".sortable");
  const head = make("tr", {});
  heads.forEach((name, column) => {
    const button = make("button", {type: "button"});
    name.split("_").forEach((part, i) => button.append(...(i ? ["_", make("wbr")] : []), part));
    const cell = make("th", {}, button);
    if (column === order) cell.ariaSort = up ? "ascending" : "descending";
    button.addEventListener("click", () => { up = column !== order || !up; order = column; fillTable(); });
    head.append(cell);
  });
  table.tHead.replaceChildren(head);
  const words = element("filter").value.split(/\s+/).filter(Boolean).map(matcher);
  const found = rows.filter(row => words.every(matches => matches(row)));
  if (order !== null) {
    const keyed = found.map(row => [key(row, order), row]);
    const numeric = keyed.every(([one]) => one === "" || !isNaN(one));
    keyed.sort(([a], [b]) => (a === "") - (b === "") || (up ? 1 : -1) * (numeric ? a - b : `${a}`.localeCompare(b)));
    keyed.forEach(([, row], i) => { found[i] = row; });
  }
  const shown = everything ? found : found.slice(0, SHOWN);
  table.tBodies[0].replaceChildren(...shown.map(row => {
    const line = make("tr", {className: row.best ? "best" : "", tabIndex: 0}, ...row.cells.map((text, i) =>
      make("td", {textContent: text})));
    line.dataset.number = row.number;
    return line;
  }));
  element("count").textContent = `${shown.length} of ${rows.length} trials`;
  element("every").hidden = shown.length === found.length;
  hint();
}

function hint() {
  const wide = element("trials");
  element("more").hidden = wide.scrollWidth <= wide.clientWidth;
}

const body = document.querySelector(".sortable").tBodies[0];
const chooseRow = event => {
  const line = event.target.closest("tr");
  if (line && (event.type === "click" || event.key === "Enter")) openTrial(+line.dataset.number);
};
body.addEventListener("click", chooseRow);
body.addEventListener("keydown", chooseRow);
element("filter").addEventListener("input", fillTable);
element("every").addEventListener("click", () => { everything = true; fillTable(); });
addEventListener("resize", hint);

// A trial: what is known of it, its decisions, its output and its checkpoint.

const dialog = element("trial");
let open = null;

// Shows a part of the trial below its facts, or changes its text alone: a person may have scrolled in it.
function showPart(title, lines, none = "") {
  let part = [...dialog.querySelectorAll("section")].find(part => part.dataset.title === title);
  if (!part) {
    part = make("section", {}, make("h3", {textContent: title}), make("pre", {}), make("p", {className: "soft"}));
    part.dataset.title = title;
    dialog.append(part);
  }
  const [, pre, words] = part.children, text = lines.join("\n");
  if (pre.textContent !== text) pre.textContent = text;
  words.textContent = none;
  pre.hidden = !(words.hidden = !!lines.length);
}

function closeTrial() {
  open = null;
  dialog.close();
}

async function openTrial(number) {
  open = number;
  const close = make("button", {type: "button", textContent: "close"});
  close.addEventListener("click", closeTrial);
  dialog.replaceChildren(make("p", {className: "soft"}, close),
    make("h2", {id: "trial-name", textContent: `Trial ${number}`}), make("dl", {}), make("p", {}));
  if (!dialog.open) dialog.show();
  await showTrial();
}

// Shows what is known now of the open trial.
async function showTrial() {
  const number = open, row = data.trials.rows.find(row => row.number === number);
  const [, , facts, buttons] = dialog.children;
  facts.replaceChildren();
  if (row) data.trials.heads.forEach((name, i) => {
    if (i && row.cells[i] !== "") facts.append(make("dt", {textContent: name}), make("dd", {textContent: row.cells[i]}));
  });
  if (!live) {
    showPart("More", [`python -m search why ${data.name} ${number}`, `python -m search logs ${data.name} ${number}`]);
    return;
  }
  const answer = await fetch(`trial/${number}`).catch(() => null);
  if (!buttons.isConnected || !answer) return; // another trial is open, or the server has ended
  const about = await answer.json();
  if (!buttons.isConnected) return;
  if (about.error) { showPart("Error", [about.error]); return; }
  if (token && !buttons.childElementCount) buttons.append(...trialButtons(number, about.params));
  if (token) buttons.lastChild.disabled = !about.checkpoint.length;
  showPart("Why", about.why);
  showPart("Log", about.log, "It has printed nothing.");
  showPart("Checkpoint", about.checkpoint, "It has none.");
}

function trialButtons(number, params) {
  const buttons = [];
  for (const kind of ["stop", "pause", "continue"]) {
    const button = make("button", {type: "button", textContent: kind});
    button.dataset.trial = kind;
    button.addEventListener("click", () => request(() => ({kind, trials: [number]})));
    buttons.push(button, " ");
  }
  const like = make("button", {type: "button", textContent: "add one like it"});
  like.addEventListener("click", () => {
    const field = element("add").elements.values;
    field.value = written(params);
    closeTrial(); // it may cover the field
    field.scrollIntoView({block: "center"});
    field.focus();
  });
  const fork = make("button", {type: "button", textContent: "add from its checkpoint"});
  fork.addEventListener("click", () => request(() => ({kind: "add", configurations: [
    {params: values(), from_trial: number, from_checkpoint: true}]})));
  return [...buttons, like, " ", fork];
}

dialog.addEventListener("keydown", event => { if (event.key === "Escape") closeTrial(); });

// Requests to the search. They need the token, which is the fragment of the address that `search watch` printed.

// The configuration of a text: words NAME=VALUE, or one JSON object, which holds any name and value.
function parsed(text) {
  if (text.trimStart().startsWith("{")) {
    try { return JSON.parse(text); } catch (error) { throw new Error(`${text}: is no JSON: ${error.message}`); }
  }
  return Object.fromEntries(text.split(/\s+/).filter(Boolean).map(word => {
    const [name, ...rest] = word.split("="), value = rest.join("=");
    if (!name || !rest.length) throw new Error(`${word}: expected NAME=VALUE; with spaces: {"NAME": "VALUE"}`);
    try { return [name, JSON.parse(value)]; } catch { return [name, value]; }
  }));
}

// The text of a configuration, without the hyperparameters that have no value: words if they hold it, otherwise JSON.
function written(params) {
  const given = Object.entries(params).filter(([, value]) => value !== null);
  const words = given.map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`).join(" ");
  const json = JSON.stringify(Object.fromEntries(given));
  try { return JSON.stringify(parsed(words)) === json ? words : json; } catch { return json; }
}

const values = () => parsed(element("add").elements.values.value);

// Sends what a function makes, and shows the answer, or the error of either.
async function request(content) {
  const said = element("answer");
  said.textContent = "sending…";
  try {
    const answer = await fetch("request", {
      method: "POST", headers: {"Content-Type": "application/json", "X-Token": token}, body: JSON.stringify(content()),
    });
    const {text, error} = await answer.json();
    said.textContent = error ?? text;
  } catch (error) {
    said.textContent = `not sent: ${error.message}`;
  }
}

function startControls() {
  const connection = element("connection");
  if (!token) connection.textContent = "Read only: the address has no token.";
  element("commands").hidden = !token;
  for (const button of document.querySelectorAll("[data-request]")) button.addEventListener("click", () => {
    const kind = button.dataset.request;
    if (kind !== "stop search" || confirm("Stop the search? Running trials finish their epoch; the final training follows."))
      request(() => kind === "stop search" ? {kind} : {kind, trials: []});
  });
  element("add").addEventListener("submit", event => {
    event.preventDefault();
    request(() => ({kind: "add", configurations: [{params: values()}]}));
  });
  const events = new EventSource("events");
  events.onmessage = () => refresh();
  events.onopen = () => { if (token) connection.textContent = ""; };
  events.onerror = () => { connection.textContent = "Not connected: the server has ended, or is busy. Trying again."; };
}

// The page of now replaces the parts of this page that have changed. What a person chose and opened stays.

const parts = new WeakMap();
for (const part of document.querySelectorAll("[data-part]")) parts.set(part, part.innerHTML);
let busy = false, again = false;

async function refresh() {
  if (busy) { again = true; return; }
  busy = true;
  try {
    do {
      again = false;
      takeIn(new DOMParser().parseFromString(await (await fetch("./")).text(), "text/html"));
      if (open !== null) await showTrial();
    } while (again);
  } catch { /* the server has ended: `events` says so */ } finally { busy = false; }
}

function takeIn(next) {
  exchange(element("now"), next.getElementById("now"));
  const main = document.querySelector("main");
  let before = null;
  for (const section of next.querySelectorAll("main > section")) {
    let mine = element(section.id);
    if (mine) {
      const mineParts = mine.querySelectorAll("[data-part]");
      section.querySelectorAll("[data-part]").forEach((part, i) => exchange(mineParts[i], part));
    } else {
      mine = document.importNode(section, true);
      for (const part of mine.querySelectorAll("[data-part]")) parts.set(part, part.innerHTML);
      main.insertBefore(mine, before ? before.nextSibling : main.firstChild);
    }
    before = mine;
  }
  for (const section of [...main.children]) if (!next.getElementById(section.id)) section.remove();
  const text = read(next);
  if (text === source) return;
  source = text;
  data = JSON.parse(text);
  fillTable();
  drawAll(false);
}

function exchange(mine, theirs) {
  const html = theirs.innerHTML;
  if (parts.get(mine) === html) return;
  parts.set(mine, html);
  mine.replaceChildren(...document.importNode(theirs, true).childNodes);
}

// A figure keeps the size of the screen when it is printed, unless it is drawn again. A page is about 680 pixels wide and
// 950 high: four rows of small figures, or a heading and one figure. A figure of more than 20 rows needs two pages.

const plots = () => [...document.querySelectorAll(".plots .js-plotly-plot")];
const resize = (plot, height) => { plot.style.height = `${height}px`; };
addEventListener("beforeprint", () => {
  drawAll(true);
  for (const plot of plots()) {
    const many = plot.closest(".many"), high = plot.dataset.height = plot.clientHeight; // a layout has no height after a resize
    const height = many ? 230 : high > 860 && high < 1400 ? 860 : high;
    resize(plot, height);
    Plotly.relayout(plot, {autosize: false, width: many ? 330 : 680, height});
  }
});
addEventListener("afterprint", () => {
  for (const plot of plots()) {
    resize(plot, plot.dataset.height);
    Plotly.relayout(plot, {autosize: true, width: null, height: +plot.dataset.height}).then(() => Plotly.Plots.resize(plot));
  }
});

fillTable();
drawAll(false);
if (live) startControls();
})();
