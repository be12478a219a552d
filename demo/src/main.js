import "./style.css";

import { Encoder } from "./encoder.js";
import { MOST_COMPARED, drawHeatMap } from "./heatmap.js";
import { MOST_LINES, readLines, readTextFile } from "./lines.js";
import { findModel } from "./place.js";
import { Results, SHOWN } from "./results.js";
import { rank } from "./similarity.js";
import { LINES, QUERY } from "./starter.js";
import { Status } from "./status.js";
import { themeButton } from "./theme.js";

// A WebAssembly module of one instruction on 128 bits, without which the runtime cannot run.
const SIMD = Uint8Array.of(
  ...[0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11],
);
const get = (id) => document.getElementById(id);
const [text, query] = [get("text"), get("query")];
const status = new Status(get);
const picked = new Set();
const results = new Results(get("results"), pick, () => query.focus());
let place, limit, encoder;
let isGivenUp = false; // there will be no vectors
let read = readLines("");
let drawing = 0;
let answered; // the vector of the last query that has one: the list keeps its order until the next one is there

function plural(count, word) {
  return `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
}

/** Read both boxes anew and have what is new in them embedded. */
function refresh() {
  read = readLines(text.value);
  status.notice("");
  for (const line of picked) if (!read.lines.includes(line)) picked.delete(line);
  encoder?.want(read.lines, query.value.trim());
  draw();
}

/** Draw once before the next paint, however many vectors came in. */
function draw() {
  cancelAnimationFrame(drawing);
  drawing = requestAnimationFrame(() => {
    const found = encoder?.found ?? new Map();
    drawResults(found);
    drawHeatMap(get("heatmap"), get("legend"), compared(), found);
    get("empty-map").hidden = compared().some((line) => found.has(line));
    get("none").disabled = picked.size === 0;
    get("save").disabled = !read.lines.some((line) => found.has(line));
    drawCounts(found);
  });
}

function compared() {
  return picked.size > 0 ? [...picked] : read.lines.slice(0, MOST_COMPARED);
}

function drawResults(found) {
  const asked = query.value.trim();
  const isRead = (each) => !each || encoder?.isDone(each);
  const isWaiting = !isGivenUp && !(limit && [asked, ...read.lines].every(isRead));
  answered = asked ? (found.get(asked)?.vector ?? answered) : undefined;
  const items = answered ? rank(answered, read.lines, found) : read.lines.map((line) => ({ line }));
  for (const item of items) item.note = noteOf(found.get(item.line));
  const isFresh = found.has(asked) && !isWaiting;
  const label = isFresh ? `Sentences, nearest to ${asked} first` : "Sentences";
  results.show(items, picked, { label, isWaiting });
  const nearest = isFresh && items[0];
  status.nearest(nearest ? `Nearest, ${nearest.score.toFixed(2)}: ${nearest.line.slice(0, 200)}` : "");
  get("hint").textContent = hint(items);
}

function noteOf(entry) {
  return entry?.isCut ? `cut: ${entry.tokens} tokens, of which the first ${limit} are read` : "";
}

function hint(items) {
  if (read.lines.length === 0) return "No sentences yet: paste some, one a line, or drop a text file.";
  if (!query.value.trim()) return "Type a query to order the sentences by how near they are.";
  return items.length > SHOWN ? `The nearest ${SHOWN} of ${plural(items.length, "sentence")}.` : "";
}

function drawCounts(found) {
  const cut = read.lines.filter((line) => found.get(line)?.isCut).length;
  const unread = read.lines.filter((line) => encoder?.unread.has(line)).length;
  const parts = [plural(read.lines.length, "sentence")];
  if (read.repeated) parts.push(`${plural(read.repeated, "repeated line")} left out`);
  if (read.beyond) parts.push(`only the first ${MOST_LINES.toLocaleString("en")} are used, ${read.beyond} more are not`);
  if (cut) parts.push(`${plural(cut, "line")} cut at ${limit} tokens`);
  if (unread) parts.push(`${plural(unread, "line")} could not be read`);
  get("counts").textContent = `${parts.join("; ")}.`;
  if (limit) status.work(read.lines.length - encoder.waiting, read.lines.length, encoder.median);
}

function pick(line) {
  if (!picked.delete(line)) {
    if (picked.size >= MOST_COMPARED) return status.notice(`The heat map holds ${MOST_COMPARED} sentences: untick one.`);
    picked.add(line);
  }
  status.notice("");
  draw();
}

async function takeFile(file) {
  if (!file) return;
  try {
    text.value = await readTextFile(file);
    refresh();
  } catch (error) {
    status.notice(error.message);
  }
}

/** Offer the vectors of the query and all lines as a file. */
function save() {
  const wanted = [query.value.trim(), ...read.lines].filter((each) => encoder.found.has(each));
  const sentences = [...new Set(wanted)].map((each) => {
    const { vector, tokens, isCut } = encoder.found.get(each);
    return { text: each, tokens, cut: isCut, vector: [...vector] };
  });
  const content = JSON.stringify({ model: place.name, dtype: place.dtype, sentences });
  const address = URL.createObjectURL(new Blob([content], { type: "application/json" }));
  const link = Object.assign(document.createElement("a"), { href: address, download: "vectors.json" });
  link.click();
  URL.revokeObjectURL(address);
}

function heard(message) {
  if (message.type === "progress") return status.loading(place, message.loaded, message.total);
  if (message.type === "failed") return giveUp(() => status.failed(place, message.reason));
  if (message.type === "ready") {
    limit = message.limit;
    status.ready(place, message);
    refresh();
  }
  draw();
}

function giveUp(tell) {
  isGivenUp = true;
  tell();
  draw();
}

function later(milliseconds, act) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(act, milliseconds);
  };
}

function listen() {
  query.addEventListener("input", later(80, refresh));
  text.addEventListener("input", later(250, refresh));
  query.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown") return;
    event.preventDefault();
    results.focusFirst();
  });
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.matches?.("input, textarea");
    if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    query.select();
  });
  get("open").addEventListener("click", () => get("file").click());
  get("file").addEventListener("change", ({ target }) => takeFile(target.files[0]).then(() => (target.value = "")));
  get("save").addEventListener("click", save);
  get("none").addEventListener("click", () => {
    picked.clear();
    draw();
  });
  // Anywhere on the page, or a file that misses the box would replace the page.
  document.addEventListener("dragover", (event) => {
    if (event.dataTransfer.types.includes("Files")) event.preventDefault();
  });
  document.addEventListener("drop", (event) => {
    if (event.dataTransfer.files.length === 0) return;
    event.preventDefault();
    takeFile(event.dataTransfer.files[0]);
  });
}

async function start() {
  themeButton(get("theme"));
  text.value ||= LINES.join("\n");
  query.value ||= QUERY;
  listen();
  refresh();
  if (typeof WebAssembly === "undefined" || !WebAssembly.validate(SIMD)) return giveUp(() => status.noWebAssembly());
  try {
    place = await findModel(location);
  } catch (error) {
    return giveUp(() => status.failed(undefined, error.message));
  }
  status.loading(place, 0, 0);
  encoder = new Encoder(place, heard);
}

start();
