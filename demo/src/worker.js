// The model, on a thread of its own so that typing stays smooth. Messages in: { type: "load", ...place of the model },
// then { type: "embed", text }. Out: "progress", then "ready" or "failed"; for every text a "vector" or "unread".
import { AutoConfig, AutoModel, AutoTokenizer, LogLevel, env } from "@huggingface/transformers";
import runtimeUrl from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";

import { cutter } from "./tokens.js";

const loaded = new Map(); // bytes of each file: { loaded, total }
let model, cut, prompt;

function report(file, done, total) {
  loaded.set(file, { loaded: done, total });
  const sum = (key) => [...loaded.values()].reduce((all, one) => all + one[key], 0);
  postMessage({ type: "progress", loaded: sum("loaded"), total: Math.max(sum("total"), sum("loaded")) });
}

// The runtime comes from this page's own files; unasked, transformers.js takes it from a CDN.
async function loadRuntime() {
  const response = await fetch(runtimeUrl);
  if (!response.ok) throw new Error(`${response.status} for the runtime, ${runtimeUrl}`);
  const total = Number(response.headers.get("content-length"));
  const parts = [];
  let size = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    report("the runtime", (size += value.length), total);
  }
  env.backends.onnx.wasm.wasmPaths = undefined;
  env.backends.onnx.wasm.wasmBinary = await new Blob(parts).arrayBuffer();
  env.backends.onnx.wasm.numThreads = 1;
}

// A folder beside the page is asked for anew, or a model made again would be read from the browser's cache; and its
// sizes are asked for by HEAD, for http.server answers a Range with the whole file.
function fetchBeside(url, options = {}) {
  const method = new Headers(options.headers).has("range") ? "HEAD" : "GET";
  return fetch(url, { method, cache: "no-cache" });
}

// What sentence-transformers puts before every text, where a model asks for it.
async function defaultPrompt(id, host, path) {
  const folder = host + path.replace("{model}", id).replace("{revision}", "main");
  const response = await env.fetch(`${folder}config_sentence_transformers.json`);
  if (!response.ok) return "";
  const { prompts, default_prompt_name: name } = await response.json();
  return prompts?.[name] ?? "";
}

async function load({ id, host, path, local, dtype }) {
  env.logLevel = LogLevel.ERROR;
  env.allowLocalModels = false;
  env.remoteHost = host;
  env.remotePathTemplate = path;
  env.useBrowserCache &&= !local;
  if (local) env.fetch = fetchBeside;
  const progress_callback = ({ status, file, loaded: done, total }) => {
    if (status === "progress") report(file, done, total);
  };
  const config = await AutoConfig.from_pretrained(id, { progress_callback }); // first, for what it says if there is none
  const [tokenizer, before, encoder] = await Promise.all([
    AutoTokenizer.from_pretrained(id, { progress_callback }),
    defaultPrompt(id, host, path),
    loadRuntime().then(() => AutoModel.from_pretrained(id, { config, dtype, device: "wasm", progress_callback })),
  ]);
  [model, cut, prompt] = [encoder, cutter(tokenizer), before];
  const { vector } = await embed("The first run is slower than those that follow.");
  loaded.delete("the runtime");
  const bytes = [...loaded.values()].reduce((all, one) => all + one.loaded, 0);
  // By its vector a model is known again: a name may be given to another one.
  return { dimensions: vector.length, limit: tokenizer.model_max_length, bytes, key: vector.slice(0, 8).join() };
}

// One text at a time, so that each is there as soon as it can be.
async function embed(text) {
  const began = performance.now();
  const { inputs, tokens, isCut } = cut(prompt + text);
  const { sentence_embedding: embedding } = await model(inputs);
  if (!embedding) throw new Error("the model's file gives no sentence_embedding, as those of `distilface export` do");
  const vector = new Float32Array(embedding.data);
  return { text, vector, tokens, isCut, milliseconds: performance.now() - began };
}

const answers = {
  load: (message) => load(message).then((facts) => ({ type: "ready", ...facts }), failed("failed")),
  embed: ({ text }) => embed(text).then((found) => ({ type: "vector", ...found }), failed("unread", { text })),
};

function failed(type, more) {
  return (error) => ({ type, reason: String(error?.message ?? error), ...more });
}

onmessage = async ({ data }) => postMessage(await answers[data.type](data));
