// An image to draw on, to drop on, and to open: what is encoded.
"use strict";

const FINE = 256; // the longer side of what is drawn on, at least

class Sketch {
  /**
   * @param {HTMLCanvasElement} canvas @param {[number, number, number]} shape @param {Held["ink"]} ink
   * @param {string} fit pad, crop or stretch @param {() => void} changed
   */
  constructor(canvas, shape, ink, fit, changed) {
    this.channels = shape[0];
    this.height = shape[1];
    this.width = shape[2];
    this.canvas = canvas;
    this.ink = ink;
    this.fit = fit;
    this.changed = changed;
    this.factor = Math.max(1, Math.ceil(FINE / Math.max(this.height, this.width)));
    canvas.width = this.width * this.factor;
    canvas.height = this.height * this.factor;
    this.color = ink && ink.ground > 0.5 ? "#000000" : "#ffffff";
    this.thickness = Math.max(this.height, this.width) * this.factor * 0.075;
    this.touched = false; // drawn by hand, so that it may be brought to its place
    this.centred = Boolean(ink);
    this.listen();
  }

  /** The grey that is nowhere drawn on. */
  get ground() {
    const level = Math.round(255 * (this.ink ? this.ink.ground : 0));
    return `rgb(${level} ${level} ${level})`;
  }

  clear() {
    const c = drawing(this.canvas);
    c.fillStyle = this.ground;
    c.fillRect(0, 0, this.canvas.width, this.canvas.height);
    this.touched = false;
  }

  /** @param {Float32Array} image */
  set(image) {
    const small = element("canvas", {width: String(this.width), height: String(this.height)}), c = drawing(this.canvas);
    drawing(small).putImageData(rgba(image, [this.channels, this.height, this.width]), 0, 0);
    c.clearRect(0, 0, this.canvas.width, this.canvas.height);
    c.imageSmoothingEnabled = false;
    c.drawImage(small, 0, 0, this.canvas.width, this.canvas.height);
    this.touched = false;
  }

  /** What is drawn, at the model's size: the mean of each pixel's part. */
  image() {
    const source = this.touched && this.centred && this.ink ? this.placed(this.ink) : this.canvas;
    const pixels = drawing(source).getImageData(0, 0, source.width, source.height).data;
    const fine = imageFrom(pixels, this.channels), {factor, channels} = this;
    const image = new Float32Array(this.height * this.width * channels);
    for (let y = 0, p = 0; y < source.height; y++) {
      for (let x = 0; x < source.width; x++) {
        const q = (Math.floor(y / factor) * this.width + Math.floor(x / factor)) * channels;
        for (let k = 0; k < channels; k++) image[q + k] += fine[p++] / factor ** 2;
      }
    }
    return image;
  }

  /** The drawing at the size and place that the training images have. @param {NonNullable<Held["ink"]>} ink */
  placed(ink) {
    const {width, height} = this.canvas, pixels = drawing(this.canvas).getImageData(0, 0, width, height).data;
    let [left, right, top, bottom, sum, sx, sy] = [width, -1, height, -1, 0, 0, 0];
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const mass = Math.abs(pixels[4 * (y * width + x)] / 255 - ink.ground);
        if (mass < 0.1) continue;
        [left, right, top, bottom] = [Math.min(left, x), Math.max(right, x), Math.min(top, y), Math.max(bottom, y)];
        sum += mass; sx += mass * x; sy += mass * y;
      }
    }
    if (!sum) return this.canvas;
    const grow = (ink.extent * this.factor) / Math.max(right - left + 1, bottom - top + 1);
    const moved = element("canvas", {width: String(width), height: String(height)}), c = drawing(moved);
    c.fillStyle = this.ground;
    c.fillRect(0, 0, width, height);
    c.imageSmoothingQuality = "high";
    const x = ink.centre[1] * this.factor - (grow * sx) / sum, y = ink.centre[0] * this.factor - (grow * sy) / sum;
    c.drawImage(this.canvas, x, y, grow * width, grow * height);
    return moved;
  }

  invert() {
    const c = drawing(this.canvas), data = c.getImageData(0, 0, this.canvas.width, this.canvas.height);
    for (let i = 0; i < data.data.length; i++) if (i % 4 < 3) data.data[i] = 255 - data.data[i];
    c.putImageData(data, 0, 0);
    this.changed();
  }

  /** Take a picture as the training images were taken. @param {CanvasImageSource} picture @param {number} width @param {number} height */
  take(picture, width, height) {
    const c = drawing(this.canvas), sx = this.canvas.width / width, sy = this.canvas.height / height;
    const scale = this.fit === "crop" ? Math.max(sx, sy) : Math.min(sx, sy);
    const [w, h] = this.fit === "stretch" ? [this.canvas.width, this.canvas.height] : [scale * width, scale * height];
    c.fillStyle = "#000";
    c.fillRect(0, 0, this.canvas.width, this.canvas.height);
    c.imageSmoothingEnabled = scale !== this.factor; // an image of the model's own size stays what it is
    c.imageSmoothingQuality = "high";
    c.drawImage(picture, (this.canvas.width - w) / 2, (this.canvas.height - h) / 2, w, h);
    this.touched = false;
    this.changed();
  }

  /** Open a file; what is wrong with it is returned. @param {Blob} file */
  async open(file) {
    try {
      const picture = await createImageBitmap(file);
      this.take(picture, picture.width, picture.height);
      return "";
    } catch {
      return "This file is no image that your browser can read. Try a PNG or JPEG file.";
    }
  }

  listen() {
    /** @type {Point | null} */
    let last = null;
    const at = (/** @type {PointerEvent} */ event) => {
      const box = this.canvas.getBoundingClientRect(), scale = this.canvas.width / box.width;
      return /** @type {Point} */ ([(event.clientX - box.left) * scale, (event.clientY - box.top) * scale]);
    };
    const stroke = (/** @type {PointerEvent} */ event) => {
      if (!last) return;
      const c = drawing(this.canvas), next = at(event);
      c.strokeStyle = this.color;
      c.lineWidth = this.thickness;
      c.lineCap = c.lineJoin = "round";
      c.beginPath();
      c.moveTo(last[0], last[1]);
      c.lineTo(next[0], next[1] + 0.01);
      c.stroke();
      last = next;
      this.touched = true;
      this.changed();
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      last = at(event);
      stroke(event);
      event.preventDefault();
    });
    this.canvas.addEventListener("pointermove", stroke);
    for (const kind of ["pointerup", "pointercancel"]) this.canvas.addEventListener(kind, () => { last = null; });
  }
}
