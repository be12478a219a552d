import { defineConfig } from "vite";

export default defineConfig({
  base: "./", // the page works in any folder of a server
  resolve: {
    // transformers.js asks for the WebGPU build, whose WASM file is twice as large; the page runs on the CPU anyway.
    alias: { "onnxruntime-web/webgpu": "onnxruntime-web/wasm" },
  },
  worker: { format: "es" },
  build: { chunkSizeWarningLimit: 1000 },
});
