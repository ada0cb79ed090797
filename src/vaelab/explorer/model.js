// A model: encode and decode, posteriors and priors, labels, the transport of a CSVAE. Each follows
// the class of the same name in vaelab.models.
"use strict";

/** @typedef {{mean: Float32Array, spread: Float32Array[]}} Posterior covariance is Σ s sᵀ over the spread */
/** @typedef {{name: string, location: number, scale: number, low: number, middle: number, high: number}} Attribute */
/**
 * @typedef {object} Labels
 * @property {string[]} classes
 * @property {Attribute[]} attributes
 * @property {boolean} cut
 * @property {string[]} decoding
 * @property {boolean} unknown whether the model learned to do without
 * @property {number[]} shares of the classes
 */
/** @typedef {{name: string, first: number, width: number, means: [number, number], scales: [number, number]}} Subspace */
/** @typedef {{kept: number, turn: Place, enter: Layer[], given: Layer[], layers: Layer[]}} Coupling */
/** @typedef {{dim: number, classes: number, first: Layer[], couplings: Coupling[]}} Transport */
/** @typedef {{about: string, components: number, weights: Place, means: Place, roots: Place}} Mixture */
/**
 * @typedef {object} Description
 * @property {[number, number, number]} shape channels, height, width
 * @property {number} dim
 * @property {Layer[]} decoder
 * @property {{family: string, layers: Layer[]} | null} encoder
 * @property {{family: string, mixtures?: number, start?: number, steep?: number}} likelihood
 * @property {{family: string, values?: Place, components?: number, logits?: Place, means?: Place, scales?: Place, layers?: Layer[]}} prior
 * @property {Mixture | null} mixture
 * @property {{encoder: boolean, decoder: boolean, prior: boolean}} told
 * @property {Labels | null} labels
 * @property {Layer[] | null} labeler
 * @property {Transport | null} transport
 * @property {Subspace[]} subspaces
 * @property {string[]} notes
 */

const LEAST_SCALE = 1e-4;
const SCALE_SHIFT = Math.log(Math.expm1(1 - LEAST_SCALE));
const LOG_SCALE_FLOOR = -7;
const STEEPEST = 2;

/** log(1 + eˣ) @param {number} x */
const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
/** @param {number} x */
const sigmoid = (x) => 1 / (1 + Math.exp(-x));
/** @param {number} raw */
const positiveScale = (raw) => softplus(raw + SCALE_SHIFT) + LEAST_SCALE;
/** @param {number} x @param {number} low @param {number} high */
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

/** A draw from the standard normal (Box and Muller, 1958). */
function normal() {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}

/** Mean of the continuous Bernoulli: 1/(1 − e^−η) − 1/η. @param {number} eta */
function continuousMean(eta) {
  if (Math.abs(eta) < 0.1) return 0.5 + eta / 12 - eta ** 3 / 720;
  return -1 / Math.expm1(-eta) - 1 / eta;
}

class Model {
  /** @param {Description} about @param {Weights} weights */
  constructor(about, weights) {
    this.about = about;
    this.weights = weights;
    const labels = about.labels;
    this.classes = labels ? labels.classes.length : 0;
    this.width = labels ? this.classes + 2 * labels.attributes.length : 0;
    /** @type {{mean: number, deviation: number}[]} of the codes, in place of a prior where there is none */
    this.fitted = [];
  }

  /** Let normals stand in for a prior. @param {Float32Array[]} codes */
  fit(codes) {
    this.fitted = Array.from({length: this.about.dim}, (_, d) => {
      const mean = codes.reduce((sum, z) => sum + z[d], 0) / codes.length;
      return {mean, deviation: Math.sqrt(codes.reduce((sum, z) => sum + (z[d] - mean) ** 2, 0) / codes.length)};
    });
  }

  /** Nothing known of any label. */
  unknown() {
    return new Float32Array(this.width);
  }

  /**
   * The posterior of an image, floats in [0, 1] in the order (row, column, channel).
   * @param {Float32Array} image @param {ArrayLike<number>} context @returns {Posterior}
   */
  encode(image, context) {
    const {encoder, shape, dim, told, transport} = this.about;
    if (!encoder) throw new Error("this page cannot encode");
    const x = {data: image, height: shape[1], width: shape[2], channels: shape[0]};
    const raw = run(encoder.layers, this.weights, x, told.encoder ? context : []).data;
    const mean = raw.slice(0, dim);
    /** @type {Float32Array[]} */
    const spread = [];
    for (let d = 0; d < dim && encoder.family !== "point"; d++) {
      spread.push(new Float32Array(dim));
      spread[d][d] = positiveScale(raw[dim + d]);
    }
    if (encoder.family === "full") { // L = diag(σ) (I + N): column j of L is one spread
      for (let i = 1, k = 2 * dim; i < dim; i++) {
        for (let j = 0; j < i; j++, k++) spread[j][i] = spread[i][i] * raw[k];
      }
    }
    return transport ? this.carry({mean, spread}, context, transport) : {mean, spread};
  }

  /**
   * The image of a code: the mean of p(x|z), clamped to [0, 1].
   * @param {ArrayLike<number>} code @param {ArrayLike<number>} context
   */
  decode(code, context) {
    const {decoder, told, transport, shape} = this.about;
    let z = Float32Array.from(code);
    if (transport) z = this.bringBack(z, context, transport);
    const own = transport ? Array.from(context).slice(0, this.classes) : context;
    const raw = run(decoder, this.weights, vector(z), told.decoder ? own : []);
    const image = this.meanOf(raw, shape[0]);
    for (let i = 0; i < image.length; i++) image[i] = clamp(image[i], 0, 1);
    return image;
  }

  /** The mean of the likelihood. @param {Maps} raw @param {number} channels */
  meanOf(raw, channels) {
    const {family, steep} = this.about.likelihood;
    if (family === "Bernoulli") return raw.data.map(sigmoid);
    if (family === "ContinuousBernoulli") return raw.data.map(continuousMean);
    if (family === "LogisticMixture") return this.mixtureMean(raw, channels);
    const means = raw.channels === channels ? raw.data : raw.data.filter((_, i) => i % raw.channels < channels); // the others are scales
    return steep ? means.map((v) => sigmoid(steep * v)) : means;
  }

  /** Mean of the discretised logistic mixture, component by component. @param {Maps} raw @param {number} channels */
  mixtureMean(raw, channels) {
    const {mixtures = 1, start = 0} = this.about.likelihood;
    const each = raw.channels / mixtures, image = new Float32Array((raw.data.length / raw.channels) * channels);
    for (let p = 0, q = 0; p < raw.data.length; p += raw.channels, q += channels) {
      const logits = Array.from({length: mixtures}, (_, k) => raw.data[p + k * each]);
      const top = Math.max(...logits), total = logits.reduce((sum, l) => sum + Math.exp(l - top), 0);
      for (let k = 0; k < mixtures; k++) {
        const at = p + k * each, weight = Math.exp(logits[k] - top) / total, means = [];
        for (let c = 0; c < channels; c++) {
          let location = raw.data[at + 1 + c];
          const first = at + 1 + 2 * channels + (c * (c - 1)) / 2;
          for (let j = 0; j < c; j++) location += Math.tanh(raw.data[first + j]) * means[j];
          const log = LOG_SCALE_FLOOR + softplus(raw.data[at + 1 + channels + c] + start - LOG_SCALE_FLOOR);
          const s = Math.exp(log);
          means.push(clamp(s * (softplus((location + 1) / s) - softplus((location - 1) / s)) - 1, -1, 1));
          image[q + c] += weight * (0.5 + 0.5 * means[c]);
        }
      }
    }
    return image;
  }

  /** A context with what is unknown as the labeler reads it. @param {Float32Array} image @param {Float32Array} context */
  read(image, context) {
    const {labeler, labels, shape} = this.about;
    if (!labeler || !labels) return context;
    const x = {data: image, height: shape[1], width: shape[2], channels: shape[0]};
    const raw = run(labeler, this.weights, x).data, filled = context.slice(), n = this.classes, count = labels.attributes.length;
    if (n && !context.subarray(0, n).some((v) => v > 0)) {
      const classes = raw.subarray(0, n);
      filled[classes.indexOf(Math.max(...classes))] = 1;
    }
    for (let a = 0; a < count; a++) {
      if (context[n + count + a] > 0) continue;
      filled[n + a] = labels.cut ? Math.sign(raw[n + a]) : raw[n + a];
      filled[n + count + a] = 1;
    }
    return filled;
  }

  /** A draw from the mixture that was fitted to the latents: see vaelab.models.mixture. @param {Mixture} mixture @param {ArrayLike<number>} context @param {number} temperature */
  drawMixture({components, ...held}, context, temperature) {
    const {dim} = this.about, w = this.weights, weights = w.single(held.weights);
    const said = Array.from(context).slice(0, this.classes).findIndex((v) => v > 0);
    const row = (said < 0 ? this.classes : said) * components; // the last one is of all classes
    let left = Math.random(), k = 0;
    while (k < components - 1 && (left -= weights[row + k]) > 0) k++;
    const means = w.single(held.means), roots = w.half(held.roots);
    const noise = Array.from({length: dim}, () => temperature * normal());
    let place = (k * dim * (dim + 1)) / 2;
    return Float32Array.from({length: dim}, (_, d) => {
      let sum = means[k * dim + d];
      for (let j = 0; j <= d; j++) sum += roots[place++] * noise[j];
      return sum;
    });
  }

  /** A draw from the prior, its noise times `temperature`. @param {ArrayLike<number>} context @param {number} temperature */
  draw(context, temperature) {
    const {prior, dim, told} = this.about, w = this.weights;
    const code = Float32Array.from({length: dim}, () => temperature * normal());
    if (prior.family === "none") return code.map((v, d) => this.fitted[d].mean + v * this.fitted[d].deviation);
    if (prior.family === "draws") {
      const values = w.half(prior.values), row = Math.floor((Math.random() * values.length) / dim);
      return values.slice(row * dim, (row + 1) * dim);
    }
    if (prior.family === "mixture") {
      const logits = Array.from(w.single(prior.logits)), top = Math.max(...logits);
      const masses = logits.map((l) => Math.exp(l - top));
      let left = Math.random() * masses.reduce((a, b) => a + b, 0), k = 0;
      while (k < masses.length - 1 && (left -= masses[k]) > 0) k++;
      const means = w.single(prior.means), scales = w.single(prior.scales);
      return code.map((v, d) => means[k * dim + d] + v * scales[k * dim + d]);
    }
    if (prior.family === "learned") {
      const raw = run(prior.layers || [], w, vector(told.prior ? context : [])).data;
      return code.map((v, d) => raw[d] + v * positiveScale(raw[dim + d]));
    }
    for (const subspace of this.about.subspaces) {
      const side = Math.random() < 0.5 ? 0 : 1;
      for (let d = 0; d < subspace.width; d++) {
        const at = subspace.first + d;
        code[at] = subspace.means[side] + code[at] * subspace.scales[side];
      }
    }
    return code;
  }

  /** A context as labels are among the training images, where nothing else is said. @param {Float32Array} context */
  ordinary(context) {
    const labels = this.about.labels, filled = context.slice(), n = this.classes;
    if (!labels) return filled;
    const count = labels.attributes.length;
    if (n && !labels.unknown && !filled.subarray(0, n).some((v) => v > 0)) filled[0] = 1;
    labels.attributes.forEach((attribute, a) => {
      if (filled[n + count + a] > 0 || labels.unknown) return;
      filled[n + a] = attribute.middle;
      filled[n + count + a] = 1;
    });
    return filled;
  }

  // The transport of a CSVAE: see vaelab.models.transport.

  /** q(z, w|x, y) of the encoder's q(h, w|x, y). @param {Posterior} posterior @param {ArrayLike<number>} context @param {Transport} transport @returns {Posterior} */
  carry({mean, spread}, context, transport) {
    const u = Float32Array.from(Array.from(context).slice(0, this.classes + this.about.subspaces.length));
    const centre = mean.slice();
    this.about.subspaces.forEach((s, a) => {
      const n = this.classes + a, known = context[n + this.about.subspaces.length] > 0;
      const share = clamp((context[n] + 1) / 2, 0, 1);
      const middle = known ? s.means[0] + share * (s.means[1] - s.means[0]) : (s.means[0] + s.means[1]) / 2;
      for (let d = 0; d < s.width; d++) centre[s.first + d] += middle;
    });
    const carried = this.through(centre, u, transport);
    const columns = spread.map((column) => {
      const ahead = this.through(centre.map((v, d) => v + column[d]), u, transport);
      const behind = this.through(centre.map((v, d) => v - column[d]), u, transport);
      return ahead.map((v, d) => (v - behind[d]) / 2);
    });
    return {mean: carried, spread: columns};
  }

  /** z = f(h; u); what follows h stays. @param {Float32Array} point @param {Float32Array} u @param {Transport} transport */
  through(point, u, transport) {
    const {dim, first, couplings} = transport, start = run(first, this.weights, vector(u)).data;
    let h = point.slice(0, dim).map((v, d) => v * Math.exp(start[dim + d]) + start[d]);
    for (const coupling of couplings) {
      h = this.turned(h, coupling, false);
      const {kept} = coupling, [shift, scale] = this.terms(coupling, h.subarray(0, kept), u);
      const rest = h.subarray(kept).map((v, d) => v * Math.exp(scale[d]) + shift[d]);
      h = Float32Array.from([...rest, ...h.subarray(0, kept)]);
    }
    return Float32Array.from([...h, ...point.subarray(dim)]);
  }

  /** h = f⁻¹(z; u), u as the class and the subspaces say. @param {Float32Array} code @param {ArrayLike<number>} context @param {Transport} transport */
  bringBack(code, context, transport) {
    const {dim, first, couplings} = transport;
    const sides = this.about.subspaces.map((s) => Math.tanh(this.side(s, code)));
    const u = Float32Array.from([...Array.from(context).slice(0, transport.classes), ...sides]);
    let z = code.slice(0, dim);
    for (const coupling of couplings.slice().reverse()) {
      const {kept} = coupling, keep = z.subarray(z.length - kept);
      const [shift, scale] = this.terms(coupling, keep, u);
      const rest = z.subarray(0, z.length - kept).map((v, d) => (v - shift[d]) * Math.exp(-scale[d]));
      z = this.turned(Float32Array.from([...keep, ...rest]), coupling, true);
    }
    const start = run(first, this.weights, vector(u)).data;
    const h = z.map((v, d) => (v - start[d]) * Math.exp(-start[dim + d]));
    return Float32Array.from([...h, ...code.subarray(dim)]);
  }

  /** A row vector times the rotation of a coupling, or times its inverse. @param {Float32Array} h @param {Coupling} coupling @param {boolean} back */
  turned(h, {turn}, back) {
    const matrix = this.weights.single(turn), n = h.length;
    return h.map((_, d) => h.reduce((sum, v, e) => sum + v * (back ? matrix[d * n + e] : matrix[e * n + d]), 0));
  }

  /** Shift and log scale of a coupling. @param {Coupling} coupling @param {Float32Array} kept @param {Float32Array} u */
  terms({enter, given, layers}, kept, u) {
    const hidden = run(enter, this.weights, vector([...kept, ...u])).data, size = hidden.length;
    const film = run(given, this.weights, vector(u)).data;
    const mixed = hidden.map((v, i) => v * (1 + film[i]) + film[size + i]);
    const raw = run(layers, this.weights, vector(mixed)).data, half = raw.length / 2;
    return [raw.subarray(0, half), raw.slice(half).map((v) => STEEPEST * Math.tanh(v / STEEPEST))];
  }

  /** log p(w|1) − log p(w|0) of a subspace. @param {Subspace} s @param {ArrayLike<number>} code */
  side(s, code) {
    let sum = 0;
    for (let d = s.first; d < s.first + s.width; d++) {
      const [off, on] = s.means.map((m, i) => -0.5 * ((code[d] - m) / s.scales[i]) ** 2 - Math.log(s.scales[i]));
      sum += on - off;
    }
    return sum;
  }
}
