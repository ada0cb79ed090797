// Two pins and the way between them: a film strip, and files of it.
"use strict";

/** @typedef {{code: Float32Array, context: Float32Array}} Pin */

const STRIP = 11;
const FRAMES = 24;

/** A share of the way from one code to another; along the arc if asked, and where there is one. @param {Float32Array} a @param {Float32Array} b @param {number} t @param {boolean} arc */
function between(a, b, t, arc) {
  const norm = (/** @type {Float32Array} */ v) => Math.hypot(...v);
  const cosine = a.reduce((sum, v, d) => sum + v * b[d], 0) / (norm(a) * norm(b) || 1);
  const angle = Math.acos(clamp(cosine, -1, 1)), sine = Math.sin(angle);
  if (!arc || !(sine > 1e-4) || !norm(a) || !norm(b)) return a.map((v, d) => v + t * (b[d] - v));
  return a.map((v, d) => (Math.sin((1 - t) * angle) * v + Math.sin(t * angle) * b[d]) / sine);
}

class Path {
  /** @param {Model} model @param {Pin} a @param {Pin} b @param {(code: Float32Array, context: Float32Array) => void} go */
  constructor(model, a, b, go) {
    this.model = model;
    this.pins = [a, b];
    this.go = go;
    this.arc = false;
    const shape = model.about.shape, strip = byId("strip", HTMLElement);
    this.frames = Array.from({length: STRIP}, (_, i) => {
      const canvas = element("canvas"), button = element("button", {type: "button", "aria-label": `Go to step ${i + 1} of ${STRIP} on the path`}, canvas);
      button.addEventListener("click", () => {
        const {code, context} = this.at(i / (STRIP - 1));
        this.go(code, context);
      });
      strip.append(button);
      return new Frame(canvas, shape, 84);
    });
  }

  /** @param {number} t @returns {Pin} */
  at(t) {
    const [a, b] = this.pins;
    return {code: between(a.code, b.code, t, this.arc), context: between(a.context, b.context, t, false)};
  }

  draw() {
    this.frames.forEach((frame, i) => {
      const {code, context} = this.at(i / (STRIP - 1));
      frame.show(this.model.decode(code, context));
    });
  }

  /** Pixels of an image at a whole scale. @param {Float32Array} image @param {number} scale */
  enlarged(image, scale) {
    const [, height, width] = this.model.about.shape, canvas = element("canvas", {width: String(width), height: String(height)});
    drawing(canvas).putImageData(rgba(image, this.model.about.shape), 0, 0);
    const large = element("canvas", {width: String(width * scale), height: String(height * scale)}), c = drawing(large);
    c.imageSmoothingEnabled = false;
    c.drawImage(canvas, 0, 0, large.width, large.height);
    return large;
  }

  /** There and back again. */
  gif() {
    const [channels, height, width] = this.model.about.shape, scale = Math.max(1, Math.round(224 / Math.max(height, width)));
    const forth = Array.from({length: FRAMES}, (_, i) => {
      const {code, context} = this.at(i / (FRAMES - 1)), large = this.enlarged(this.model.decode(code, context), scale);
      return drawing(large).getImageData(0, 0, large.width, large.height).data;
    });
    return gif([...forth, ...forth.slice(1, -1).reverse()], width * scale, height * scale, channels === 1, 6);
  }

  /** The film strip as a picture. @returns {Promise<Blob | null>} */
  png() {
    const [, height, width] = this.model.about.shape, scale = Math.max(1, Math.round(112 / Math.max(height, width))), gap = 2 * scale;
    const sheet = element("canvas", {width: String(STRIP * (width * scale + gap) + gap), height: String(height * scale + 2 * gap)});
    const c = drawing(sheet);
    c.fillStyle = "#808080";
    c.fillRect(0, 0, sheet.width, sheet.height);
    for (let i = 0; i < STRIP; i++) {
      const {code, context} = this.at(i / (STRIP - 1));
      c.drawImage(this.enlarged(this.model.decode(code, context), scale), gap + i * (width * scale + gap), gap);
    }
    return new Promise((resolve) => sheet.toBlob(resolve, "image/png"));
  }
}
