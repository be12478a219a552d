function halfToFloat(bits) {
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
  const size = exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction;
  return (bits & 0x8000 ? -1 : 1) * (exponent === 31 ? (fraction ? NaN : Infinity) : size);
}

const READ = {
  "<f4": (bytes) => new Float32Array(bytes),
  "<f8": (bytes) => Float32Array.from(new Float64Array(bytes)),
  "<f2": (bytes) => Float32Array.from(new Uint16Array(bytes), halfToFloat),
};

/** Read numpy's file of a table of numbers: { rows, columns, vectors }; an Error says in a sentence why not. */
export function readNpy(buffer, name) {
  const view = new DataView(buffer);
  const text = (from, to) => new TextDecoder("latin1").decode(new Uint8Array(buffer, from, to - from));
  if (buffer.byteLength < 12 || text(1, 6) !== "NUMPY") throw new Error(`${name} is not a file of numpy.`);
  const start = view.getUint8(6) === 1 ? 10 : 12;
  const end = start + (start === 10 ? view.getUint16(8, true) : view.getUint32(8, true));
  const header = text(start, Math.min(end, buffer.byteLength));
  const kind = /'descr': '([^']*)'/.exec(header)?.[1];
  const [rows, columns, ...more] = (/'shape': \(([^)]*)\)/.exec(header)?.[1] ?? "").split(",").filter((n) => n.trim()).map(Number);
  if (!columns || more.length) throw new Error(`${name} is not a table of rows and numbers; save an array of two dimensions.`);
  if (!READ[kind] || /'fortran_order': True/.test(header))
    throw new Error(`${name} holds ${kind} in an order or of a kind that is not read; save float32 or float16, row by row.`);
  const size = rows * columns * Number(kind[2]);
  if (buffer.byteLength - end < size) throw new Error(`${name} ends too early; it was not copied whole.`);
  return { rows, columns, vectors: READ[kind](buffer.slice(end, end + size)) };
}
