// Small parts of the page: elements, images, colours.
"use strict";

/** @typedef {{columns: number, exact: boolean, data: string}} Sheet */
/**
 * @typedef {object} Held what the page holds
 * @property {Description} model
 * @property {{count: number, total: number, index: number[], means: Place, deviations: Place | null, contexts: Place | null, labels: number[] | null, attributes: Record<string, (number | null)[]>, sheet: Sheet}} points
 * @property {{rates: number[] | null, variances: number[], active: boolean[], order: number[]}} dimensions
 * @property {{pca?: {centre: number[], components: number[][], shares: number[]}, tsne?: [number, number][]}} layouts
 * @property {{count: number, total: number, typical: number, labels: number[] | null, sheet: Sheet}} train
 * @property {{name: string, vector: number[], means: [number, number]}[]} handles
 * @property {{image: string, context: number[], mean: number[], deviation: number[], decoded: string} | null} check
 * @property {string[]} classes
 * @property {string[]} colors
 * @property {string[]} markers
 * @property {{ground: number, extent: number, centre: [number, number]} | null} ink
 * @property {string} fit
 * @property {string} set
 * @property {boolean} heldOut
 * @property {{halves: string, singles: string}} weights
 */

/**
 * The element of an id, of the class that it must have.
 * @template {Element} T
 * @param {string} id @param {new () => T} kind
 * @returns {T}
 */
function byId(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`#${id} is missing`);
  return found;
}

/**
 * A new element.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag @param {Record<string, string>} attributes @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[K]}
 */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** @param {HTMLCanvasElement} canvas */
function drawing(canvas) {
  const context = canvas.getContext("2d", {willReadFrequently: true});
  if (!context) throw new Error("this browser has no canvas");
  return context;
}

/** @type {Map<string, string>} colours of the theme, forgotten when it changes */
const themeColors = new Map();

/** A colour of the page, such as `accent`. @param {string} name */
function themeColor(name) {
  const known = themeColors.get(name);
  if (known !== undefined) return known;
  const found = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  themeColors.set(name, found);
  return found;
}

/** A number with a real minus. @param {number} value @param {number} digits */
function shown(value, digits = 2) {
  return value.toFixed(digits).replace("-", "−");
}

/** The number of a dimension as a subscript. @param {number} number */
function subscript(number) {
  return String(number).replace(/\d/g, (d) => "₀₁₂₃₄₅₆₇₈₉"[Number(d)]);
}

/** A share of viridis, 0 to 1: a polynomial fit of degree 6 (Zucker, 2019). @param {number} t */
function viridis(t) {
  const c = [[0.2777, 0.0054, 0.3341], [0.1051, 1.4046, 1.3846], [-0.3309, 0.2148, 0.0951], [-4.6342, -5.7991, -19.3324],
    [6.2283, 14.1799, 56.6906], [4.7764, -13.7451, -65.353], [-5.4355, 4.6459, 26.3124]];
  const channel = (/** @type {number} */ k) => Math.round(255 * clamp(c.reduceRight((sum, row) => sum * t + row[k], 0), 0, 1));
  return `rgb(${channel(0)} ${channel(1)} ${channel(2)})`;
}

/** An image, floats in [0, 1], as pixels of a canvas. @param {Float32Array} image @param {[number, number, number]} shape */
function rgba(image, [channels, height, width]) {
  const data = new ImageData(width, height);
  for (let p = 0; p < height * width; p++) {
    for (let k = 0; k < 3; k++) data.data[4 * p + k] = channels === 1 ? 255 * image[p] : k < channels ? 255 * image[p * channels + k] : 0;
    data.data[4 * p + 3] = channels === 4 ? 255 * image[p * 4 + 3] : 255;
  }
  return data;
}

/** Pixels of a canvas as an image. @param {Uint8ClampedArray} pixels @param {number} channels */
function imageFrom(pixels, channels) {
  const count = pixels.length / 4, image = new Float32Array(count * channels);
  for (let p = 0; p < count; p++) {
    const grey = Math.round((19595 * pixels[4 * p] + 38470 * pixels[4 * p + 1] + 7471 * pixels[4 * p + 2]) / 65536);
    for (let k = 0; k < channels; k++) { // a fourth is alpha; of more channels a picture shows three
      image[p * channels + k] = (channels === 1 || k >= (channels === 4 ? 4 : 3) ? grey : pixels[4 * p + k]) / 255;
    }
  }
  return image;
}

/** Shows images at a whole number of pixels each. */
class Frame {
  /** @param {HTMLCanvasElement} canvas @param {[number, number, number]} shape @param {number} side about how large, in pixels of the page */
  constructor(canvas, shape, side) {
    this.canvas = canvas;
    this.shape = shape;
    const [, height, width] = shape;
    canvas.width = width;
    canvas.height = height;
    this.scale = Math.max(1, Math.floor(side / Math.max(height, width) + 0.2));
    canvas.style.width = `${width * this.scale}px`;
  }

  /** @param {Float32Array} image */
  show(image) {
    drawing(this.canvas).putImageData(rgba(image, this.shape), 0, 0);
  }
}

/** The images of a sheet. */
class Images {
  /** @param {Sheet} sheet @param {[number, number, number]} shape @param {number} count */
  constructor(sheet, shape, count) {
    this.sheet = sheet;
    this.shape = shape;
    this.count = count;
    /** @type {CanvasRenderingContext2D | null} */
    this.context = null;
  }

  async load() {
    const picture = new Image();
    picture.src = `data:image/webp;base64,${this.sheet.data}`;
    await picture.decode();
    const canvas = element("canvas", {width: String(picture.width), height: String(picture.height)});
    this.context = drawing(canvas);
    this.context.drawImage(picture, 0, 0);
  }

  /** @param {number} i */
  at(i) {
    const [channels, height, width] = this.shape, {columns} = this.sheet;
    if (!this.context) throw new Error("images are not loaded yet");
    const planes = [1, 3, 4].includes(channels) ? 1 : channels, tall = height * planes; // below one another
    const x = (i % columns) * width, y = Math.floor(i / columns) * tall;
    const {data} = this.context.getImageData(x, y, width, tall);
    if (planes === 1) return imageFrom(data, channels);
    const size = height * width;
    return new Float32Array(size * planes).map((_, at) => data[4 * ((at % planes) * size + Math.floor(at / planes))] / 255);
  }
}

/** Let a reader keep a file. @param {string} name @param {BlobPart} data @param {string} type */
function download(name, data, type) {
  const address = URL.createObjectURL(new Blob([data], {type}));
  element("a", {href: address, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
