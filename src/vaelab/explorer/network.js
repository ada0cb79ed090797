// Runs the layers that graph.py describes. A map is a Float32Array in the order (row, column,
// channel); a vector is a map of one pixel. What PyTorch computes, in float32 storage.
"use strict";

/** @typedef {{data: Float32Array, height: number, width: number, channels: number}} Maps */
/** @typedef {[number, number]} Place first number and count, among the weights */
/**
 * @typedef {object} Layer
 * @property {string} op
 * @property {number} [inputs]
 * @property {number} [outputs]
 * @property {[number, number]} [kernel]
 * @property {[number, number]} [stride]
 * @property {[number, number]} [padding]
 * @property {[number, number]} [extra]
 * @property {Place} [weight]
 * @property {Place | null} [bias]
 * @property {Place} [scale]
 * @property {Place} [shift]
 * @property {number} [groups]
 * @property {number} [epsilon]
 * @property {number} [constant]
 * @property {number} [height]
 * @property {number} [width]
 * @property {number} [channels]
 * @property {number} [right]
 * @property {number} [bottom]
 * @property {Layer[]} [body]
 */

/** Base64 as bytes. @param {string} text */
function bytesOf(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

/** Little-endian float32 in base64. @param {string} text */
function singlesOf(text) {
  const view = new DataView(bytesOf(text).buffer);
  return Float32Array.from({length: view.byteLength / 4}, (_, i) => view.getFloat32(4 * i, true));
}

/** Little-endian float16 in base64, as float32. @param {string} text */
function halvesOf(text) {
  const bytes = bytesOf(text);
  const out = new Float32Array(bytes.length / 2);
  for (let i = 0; i < out.length; i++) {
    const bits = bytes[2 * i] | (bytes[2 * i + 1] << 8);
    const exponent = (bits >> 10) & 31, fraction = bits & 1023;
    const size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
    out[i] = bits & 0x8000 ? -size : size;
  }
  return out;
}

/** @param {ArrayLike<number>} values @returns {Maps} */
function vector(values) {
  return {data: Float32Array.from(values), height: 1, width: 1, channels: values.length};
}

/** @param {number} height @param {number} width @param {number} channels @returns {Maps} */
function zeros(height, width, channels) {
  return {data: new Float32Array(height * width * channels), height, width, channels};
}

/** The error function, to 1.5e-7 (Abramowitz and Stegun, 7.1.26). @param {number} x */
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const sum = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  return Math.sign(x) * (1 - sum * Math.exp(-x * x));
}

/** @type {Record<string, (v: number, constant: number) => number>} */
const ACTIVATIONS = {
  "relu": (v) => (v > 0 ? v : 0),
  "leaky-relu": (v, slope) => (v > 0 ? v : slope * v),
  "elu": (v, alpha) => (v > 0 ? v : alpha * Math.expm1(v)),
  "gelu": (v) => 0.5 * v * (1 + erf(v / Math.SQRT2)),
  "silu": (v) => v / (1 + Math.exp(-v)),
  "tanh": Math.tanh,
};

/** The numbers of all networks of a page. */
class Weights {
  /** @param {{halves: string, singles: string}} encoded */
  constructor(encoded) {
    this.halves = halvesOf(encoded.halves);
    this.singles = singlesOf(encoded.singles);
  }

  /** @param {Place | undefined} place */
  half(place) {
    const [first, count] = /** @type {Place} */ (place);
    return this.halves.subarray(first, first + count);
  }

  /** @param {Place | null | undefined} place @param {number} count zeros, where there is none */
  single(place, count = 0) {
    return place ? this.singles.subarray(place[0], place[0] + place[1]) : new Float32Array(count);
  }
}

/**
 * What layers make of a map, and of a context where one is asked for.
 * @param {Layer[]} layers
 * @param {Weights} weights
 * @param {Maps} x
 * @param {ArrayLike<number>} [context]
 */
function run(layers, weights, x, context = []) {
  for (const layer of layers) x = apply(layer, weights, x, context);
  return x;
}

/** @param {Layer} layer @param {Weights} weights @param {Maps} x @param {ArrayLike<number>} context @returns {Maps} */
function apply(layer, weights, x, context) {
  const {op} = layer;
  if (op in ACTIVATIONS) {
    const f = ACTIVATIONS[op], constant = layer.constant || 0;
    return {...x, data: x.data.map((v) => f(v, constant))};
  }
  if (op === "linear") return linear(layer, weights, x);
  if (op === "conv") return conv(layer, weights, x);
  if (op === "deconv") return deconv(layer, weights, x);
  if (op === "affine") return affine(layer, weights, x);
  if (op === "mix") return mix(layer, weights, x);
  if (op === "plus") {
    const shift = weights.single(layer.shift);
    return {...x, data: x.data.map((v, i) => v + shift[i])};
  }
  if (op === "group-norm") return groupNorm(layer, weights, x);
  if (op === "upsample") return upsample(layer, x);
  if (op === "pad") return pad(x, 0, 0, layer.bottom || 0, layer.right || 0);
  if (op === "flatten") return {data: x.data, height: 1, width: 1, channels: x.data.length};
  if (op === "shape") return {data: x.data, ...sizes(layer)};
  if (op === "planes") return vector(turned(x.data, x.height * x.width, x.channels));
  if (op === "interleave") {
    const {height, width, channels} = sizes(layer);
    return {data: turned(x.data, channels, height * width), height, width, channels};
  }
  if (op === "context") return vector([...x.data, ...Array.from(context)]);
  if (op === "context-planes") return withPlanes(x, context);
  if (op === "residual") {
    const branch = run(layer.body || [], weights, x);
    return {...x, data: x.data.map((v, i) => v + branch.data[i])};
  }
  throw new Error(`unknown layer ${op}`);
}

/** @param {Layer} layer */
function sizes(layer) {
  return {height: layer.height || 0, width: layer.width || 0, channels: layer.channels || 0};
}

/** The transpose of a matrix of rows × columns. @param {Float32Array} data @param {number} rows @param {number} columns */
function turned(data, rows, columns) {
  const out = new Float32Array(data.length);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) out[c * rows + r] = data[r * columns + c];
  return out;
}

/** @param {Maps} x @param {ArrayLike<number>} context */
function withPlanes(x, context) {
  const channels = x.channels + context.length;
  const y = zeros(x.height, x.width, channels);
  for (let p = 0; p < x.height * x.width; p++) {
    for (let c = 0; c < channels; c++) {
      y.data[p * channels + c] = c < x.channels ? x.data[p * x.channels + c] : context[c - x.channels];
    }
  }
  return y;
}

/** @param {Layer} layer @param {Weights} weights @param {Maps} x */
function linear(layer, weights, x) {
  const inputs = layer.inputs || 0, outputs = layer.outputs || 0;
  const w = weights.half(layer.weight), b = weights.single(layer.bias, outputs), data = x.data;
  const y = zeros(1, 1, outputs);
  for (let o = 0; o < outputs; o++) {
    let sum = b[o];
    for (let i = 0, k = o * inputs; i < inputs; i++, k++) sum += data[i] * w[k];
    y.data[o] = sum;
  }
  return y;
}

/** A map with zeros around it. @param {Maps} x @param {number} top @param {number} left @param {number} bottom @param {number} right */
function pad(x, top, left, bottom, right) {
  if (!(top || left || bottom || right)) return x;
  const y = zeros(x.height + top + bottom, x.width + left + right, x.channels);
  const row = x.width * x.channels;
  for (let r = 0; r < x.height; r++) {
    y.data.set(x.data.subarray(r * row, (r + 1) * row), ((r + top) * y.width + left) * x.channels);
  }
  return y;
}

/** y = Σ over rows, columns and inputs of the kernel (rows, columns, inputs, outputs). @param {Layer} layer @param {Weights} weights @param {Maps} x */
function conv(layer, weights, x) {
  const [kh, kw] = layer.kernel || [1, 1], [sh, sw] = layer.stride || [1, 1], [ph, pw] = layer.padding || [0, 0];
  const inputs = x.channels, outputs = layer.outputs || 0;
  const w = weights.half(layer.weight), b = weights.single(layer.bias, outputs);
  const padded = pad(x, ph, pw, ph, pw), data = padded.data;
  const y = zeros(Math.floor((padded.height - kh) / sh) + 1, Math.floor((padded.width - kw) / sw) + 1, outputs);
  const out = y.data;
  for (let r = 0, q = 0; r < y.height; r++) {
    for (let c = 0; c < y.width; c++, q += outputs) {
      out.set(b, q);
      for (let i = 0, k = 0; i < kh; i++) {
        let p = ((r * sh + i) * padded.width + c * sw) * inputs;
        for (let n = 0; n < kw * inputs; n++, p++, k += outputs) {
          const v = data[p];
          if (v !== 0) for (let o = 0; o < outputs; o++) out[q + o] += v * w[k + o];
        }
      }
    }
  }
  return y;
}

/** Each input pixel adds its kernel to the output, of which the padding is cut off. @param {Layer} layer @param {Weights} weights @param {Maps} x */
function deconv(layer, weights, x) {
  const [kh, kw] = layer.kernel || [1, 1], [sh, sw] = layer.stride || [1, 1];
  const [ph, pw] = layer.padding || [0, 0], [eh, ew] = layer.extra || [0, 0];
  const inputs = x.channels, outputs = layer.outputs || 0;
  const w = weights.half(layer.weight), b = weights.single(layer.bias, outputs);
  const y = zeros((x.height - 1) * sh - 2 * ph + kh + eh, (x.width - 1) * sw - 2 * pw + kw + ew, outputs);
  const out = y.data, data = x.data;
  for (let q = 0; q < out.length; q += outputs) out.set(b, q);
  for (let r = 0, p = 0; r < x.height; r++) {
    for (let c = 0; c < x.width; c++, p += inputs) {
      for (let i = 0; i < kh; i++) {
        const row = r * sh + i - ph;
        if (row < 0 || row >= y.height) continue;
        for (let j = 0; j < kw; j++) {
          const column = c * sw + j - pw;
          if (column < 0 || column >= y.width) continue;
          const q = (row * y.width + column) * outputs;
          let k = (i * kw + j) * inputs * outputs;
          for (let n = 0; n < inputs; n++, k += outputs) {
            const v = data[p + n];
            if (v !== 0) for (let o = 0; o < outputs; o++) out[q + o] += v * w[k + o];
          }
        }
      }
    }
  }
  return y;
}

/** @param {Layer} layer @param {Weights} weights @param {Maps} x @returns {Maps} */
function affine(layer, weights, x) {
  const scale = weights.single(layer.scale), shift = weights.single(layer.shift), channels = x.channels;
  return {...x, data: x.data.map((v, i) => v * scale[i % channels] + shift[i % channels])};
}

/** A matrix of the channels of every pixel. @param {Layer} layer @param {Weights} weights @param {Maps} x @returns {Maps} */
function mix(layer, weights, x) {
  const matrix = weights.single(layer.scale), shift = weights.single(layer.shift), n = x.channels;
  return {...x, data: x.data.map((_, i) => {
    const c = i % n, first = i - c;
    let sum = shift[c];
    for (let k = 0; k < n; k++) sum += matrix[c * n + k] * x.data[first + k];
    return sum;
  })};
}

/** @param {Layer} layer @param {Weights} weights @param {Maps} x @returns {Maps} */
function groupNorm(layer, weights, x) {
  const scale = weights.single(layer.scale), shift = weights.single(layer.shift);
  const groups = layer.groups || 1, channels = x.channels, each = channels / groups;
  const pixels = x.height * x.width, data = new Float32Array(x.data.length);
  for (let g = 0; g < groups; g++) {
    let sum = 0, squares = 0;
    for (let p = 0; p < pixels; p++) for (let c = g * each; c < (g + 1) * each; c++) sum += x.data[p * channels + c];
    const mean = sum / (pixels * each);
    for (let p = 0; p < pixels; p++) for (let c = g * each; c < (g + 1) * each; c++) squares += (x.data[p * channels + c] - mean) ** 2;
    const factor = 1 / Math.sqrt(squares / (pixels * each) + (layer.epsilon || 0));
    for (let p = 0; p < pixels; p++) {
      for (let c = g * each; c < (g + 1) * each; c++) {
        data[p * channels + c] = (x.data[p * channels + c] - mean) * factor * scale[c] + shift[c];
      }
    }
  }
  return {...x, data};
}

/** To the nearest pixel, as PyTorch's `nearest` rounds: down. @param {Layer} layer @param {Maps} x */
function upsample(layer, x) {
  const {height, width} = sizes(layer), channels = x.channels;
  const y = zeros(height, width, channels);
  for (let r = 0; r < height; r++) {
    const from = Math.floor((r * x.height) / height);
    for (let c = 0; c < width; c++) {
      const p = (from * x.width + Math.floor((c * x.width) / width)) * channels;
      y.data.set(x.data.subarray(p, p + channels), (r * width + c) * channels);
    }
  }
  return y;
}
