// A WebAssembly module of one instruction on 128 bits, without which the runtime cannot run.
const SIMD = Uint8Array.of(
  ...[0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11],
);

/** Whether this browser can run the model. */
export function hasSimd() {
  return typeof WebAssembly !== "undefined" && WebAssembly.validate(SIMD);
}
