const BITS = { q4: "4 bits", int8: "int8", fp32: "fp32" };
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

/** What the page says of the model: loading, ready, at work, or why it is not there. */
export class Status {
  constructor(get) {
    this.get = get;
    this.progress = get("progress");
  }

  /** Say in a sentence where things are; `detail` changes often, and is not read out. */
  say(words, detail = "", isTrouble = false) {
    if (this.get("status").textContent !== words) this.get("status").textContent = words;
    this.get("detail").textContent = detail;
    this.get("strip").classList.toggle("trouble", isTrouble);
  }

  loading({ name, source }, loaded, total) {
    const size = total ? `${megabytes(loaded)} of ${megabytes(total)}, with the runtime` : "";
    this.say(`Loading ${name} ${source}.`, size);
    this.bar(loaded, total);
  }

  ready({ name, source, dtype }, { bytes, dimensions, limit }) {
    this.say("Ready.");
    this.fact("model", name);
    this.fact("source", source);
    this.fact("size", `${megabytes(bytes)}, ${BITS[dtype]}`);
    this.fact("dimensions", `${dimensions} numbers, up to ${limit} tokens`);
    this.get("facts").hidden = false;
  }

  /** How far the lines are, and the median time of one. */
  work(done, all, median) {
    if (median !== undefined) this.fact("time", `${median.toFixed(median < 10 ? 1 : 0)} ms, median`);
    const isDone = done === all;
    if (isDone) this.say("Ready.");
    else this.say("Embedding the sentences.", `${done.toLocaleString("en")} of ${all.toLocaleString("en")}`);
    this.bar(isDone ? 0 : done, isDone ? 0 : all);
  }

  bar(value, max) {
    this.progress.hidden = !max;
    if (max) Object.assign(this.progress, { max, value });
  }

  fact(id, words) {
    this.get(id).textContent = words;
  }

  /** Tell a screen reader what a sighted person sees change. */
  nearest(item) {
    const words = item ? `Nearest, ${item.score.toFixed(2)}: ${item.line.slice(0, 200)}` : "";
    if (this.get("live").textContent !== words) this.get("live").textContent = words;
  }

  /** Say why something that was asked for is not done; no words take it away. */
  notice(words) {
    this.get("notice").textContent = words;
  }

  failed(place, reason) {
    const what = place ? `${place.name} could not be loaded ${place.source}` : "The model could not be found";
    const remedy = place?.local
      ? "Put a model beside the page again: make page."
      : "Check the name and the network, or use a model of your own with no network: make page.";
    this.say(`${what}: ${reason.replace(/\.$/, "")}. ${remedy}`, "", true);
    this.bar(0, 0);
  }

  noWebAssembly() {
    this.say(
      "This page needs WebAssembly with SIMD, which this browser does not have or has switched off (a lockdown mode does). " +
        "A current Firefox, Chrome, Edge or Safari has it. WebGPU is not needed.",
      "",
      true,
    );
  }
}
