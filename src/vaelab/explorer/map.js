// The latent map: planes to look at codes on, points, densities, decoded images, and marks on top.
"use strict";

/** @typedef {[number, number]} Point */
/**
 * A way to lay codes out on a plane.
 * @typedef {object} Layout
 * @property {(code: ArrayLike<number>) => Point} place
 * @property {(code: Float32Array, at: Point) => Float32Array} move the code nearest to one that is there
 * @property {(spread: ArrayLike<number>) => Point} project a difference of codes; zeros if not linear
 * @property {boolean} linear
 * @property {[string, string]} axes
 * @property {Point[]} points
 */

/** Two dimensions of the code, or one against nothing. @param {number[]} dims @param {Float32Array[]} codes @param {(d: number) => string} name @returns {Layout} */
function planeOf(dims, codes, name) {
  const [a, b] = dims;
  const place = (/** @type {ArrayLike<number>} */ z) => /** @type {Point} */ ([z[a], b === undefined ? 0 : z[b]]);
  return {
    place,
    project: place,
    linear: true,
    axes: [name(a), b === undefined ? "" : name(b)],
    points: codes.map(place),
    move(code, at) {
      const moved = code.slice();
      moved[a] = at[0];
      if (b !== undefined) moved[b] = at[1];
      return moved;
    },
  };
}

/** Two principal components. @param {number[]} centre @param {number[][]} components @param {number[]} shares @param {Float32Array[]} codes @returns {Layout} */
function principal(centre, components, shares, codes) {
  const project = (/** @type {ArrayLike<number>} */ v) => /** @type {Point} */ (components.map((row) => row.reduce((sum, c, d) => sum + c * v[d], 0)));
  const middle = project(centre);
  const place = (/** @type {ArrayLike<number>} */ z) => /** @type {Point} */ (project(z).map((v, k) => v - middle[k]));
  const name = (/** @type {number} */ k) => `component ${k + 1}, ${Math.round(100 * shares[k])} % of the variance`;
  return {
    place, project, linear: true, axes: [name(0), name(1)], points: codes.map(place),
    move(code, at) {
      const from = place(code);
      return code.map((v, d) => v + components.reduce((sum, row, k) => sum + row[d] * (at[k] - from[k]), 0));
    },
  };
}

/** Places that only the points have; between them, means weighted by nearness. @param {Point[]} points @param {Float32Array[]} codes @returns {Layout} */
function embedded(points, codes) {
  /** @param {(i: number) => number} squared @param {number} least @returns {[number, number][]} */
  const near = (squared, least) => {
    const found = codes.map((_, i) => /** @type {[number, number]} */ ([i, squared(i)])).sort((u, v) => u[1] - v[1]).slice(0, 6);
    const weights = found.map(([i, d]) => /** @type {[number, number]} */ ([i, 1 / (d + least) ** 2]));
    const total = weights.reduce((sum, [, w]) => sum + w, 0);
    return weights.map(([i, w]) => [i, w / total]);
  };
  return {
    linear: false, axes: ["t-SNE", ""], points, project: () => [0, 0],
    place(code) {
      const weights = near((i) => codes[i].reduce((sum, v, d) => sum + (v - code[d]) ** 2, 0), 1e-6);
      return /** @type {Point} */ ([0, 1].map((k) => weights.reduce((sum, [i, w]) => sum + w * points[i][k], 0)));
    },
    move(code, at) {
      const weights = near((i) => (points[i][0] - at[0]) ** 2 + (points[i][1] - at[1]) ** 2, 1e-5);
      return code.map((_, d) => weights.reduce((sum, [i, w]) => sum + w * codes[i][d], 0));
    },
  };
}

const MARGIN = 26;
const CORNER = [60, 130]; // pixels that the buttons take at the upper right, and a mark beside them
const REACH = 4; // half a side of the map of a standard normal prior, in deviations

/**
 * A square that holds nearly all points, the outer lines of the aggregate posterior and of the prior, and all marks.
 * @param {Point[]} points @param {(i: number) => Point} spread deviations of a point's posterior @param {Point[]} prior places of draws, or ends of its circles
 * @param {boolean} standard whether the prior is a standard normal @param {Point[]} marks @returns {View}
 */
function viewOf(points, spread, prior, standard, marks) {
  const rings = points.flatMap((p, i) => {
    const [u, v] = spread(i);
    return [-2, 2].map((s) => /** @type {Point} */ ([p[0] + s * u, p[1] + s * v]));
  });
  const ends = [0, 1].map((k) => {
    const ends = (/** @type {Point[]} */ places, /** @type {number} */ q) => {
      const sorted = places.map((p) => p[k]).sort((u, v) => u - v);
      return [1 - q, q].map((q) => sorted[Math.round(q * (sorted.length - 1))]).filter(Number.isFinite);
    };
    const [low, high] = ends(points, 0.996);
    const held = [low, high, ...ends(rings, 0.95), ...ends(prior, 0.99), ...marks.map((p) => p[k])];
    if (standard && low > -REACH && high < REACH) held.push(-REACH, REACH);
    return [Math.min(...held), Math.max(...held)];
  });
  const half = 0.5 * Math.max(...ends.map(([low, high]) => high - low), 1e-3);
  return {x: (ends[0][0] + ends[0][1]) / 2, y: (ends[1][0] + ends[1][1]) / 2, half};
}

/** What is drawn below the marks, and the marks. */
class LatentMap {
  /** @param {HTMLElement} box @param {HTMLCanvasElement} ground @param {HTMLCanvasElement} marks */
  constructor(box, ground, marks) {
    this.box = box;
    this.ground = ground;
    this.marks = marks;
    /** @type {View} */
    this.view = {x: 0, y: 0, half: REACH};
    /** @type {Layout} */
    this.layout = planeOf([0], [], String);
    /** @type {string[]} */
    this.colors = [];
    /** @type {string[]} */
    this.shapes = [];
    /** @type {(i: number) => boolean} */
    this.visible = () => true;
    this.show = {points: true, density: true, images: false};
    /** @type {{path: Path2D, prior: boolean}[]} */
    this.contours = [];
    /** @type {number[]} radii of circles of a standard normal prior */
    this.circles = [];
    /** @type {Point} of these circles */
    this.centre = [0, 0];
    /** @type {HTMLCanvasElement | null} */
    this.tiles = null;
    this.side = 0;
  }

  /** Fit the canvases to the page; true if that changed them. */
  resize() {
    const side = Math.round(this.box.clientWidth), ratio = window.devicePixelRatio || 1;
    if (side === this.side && this.ground.width === Math.round(side * ratio)) return false;
    this.side = side;
    for (const canvas of [this.ground, this.marks]) {
      canvas.width = canvas.height = Math.round(side * ratio);
      drawing(canvas).setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    return true;
  }

  /** Pixels of the page for a unit of the map. */
  get scale() {
    return Math.max(this.side - 2 * MARGIN, 1) / (2 * this.view.half);
  }

  /** @param {Point} at @returns {Point} */
  toPage([x, y]) {
    return [this.side / 2 + (x - this.view.x) * this.scale, this.side / 2 - (y - this.view.y) * this.scale];
  }

  /** @param {Point} at @returns {Point} */
  toMap([left, top]) {
    return [this.view.x + (left - this.side / 2) / this.scale, this.view.y - (top - this.side / 2) / this.scale];
  }

  /** Zoom out until no mark lies under the buttons in the corner. @param {Point[]} marks */
  clearCorner(marks) {
    const [wide, high] = CORNER, half = this.view.half;
    const under = () => marks.some((mark) => {
      const [x, y] = this.toPage(mark);
      return x > this.side - wide && y < high;
    });
    while (under() && this.view.half < 2 * half) this.view = {...this.view, half: this.view.half * 1.04};
  }

  /** @param {number} factor @param {Point} about in pixels, which stays where it is */
  zoom(factor, about) {
    const before = this.toMap(about);
    this.view = {...this.view, half: clamp(this.view.half / factor, 1e-3, 1e4)};
    const after = this.toMap(about);
    this.pan(before[0] - after[0], before[1] - after[1]);
  }

  /** @param {number} x @param {number} y in units of the map */
  pan(x, y) {
    this.view = {...this.view, x: this.view.x + x, y: this.view.y + y};
  }

  /** The visible point nearest to a place in pixels. @param {Point} at @param {number} within */
  nearest([left, top], within) {
    let best = -1, least = within ** 2;
    this.layout.points.forEach((point, i) => {
      if (!this.visible(i)) return;
      const [x, y] = this.toPage(point), d = (x - left) ** 2 + (y - top) ** 2;
      if (d < least) [best, least] = [i, d];
    });
    return best;
  }

  drawGround() {
    const c = drawing(this.ground), side = this.side;
    c.clearRect(0, 0, side, side);
    if (this.show.images && this.tiles) {
      c.imageSmoothingEnabled = false;
      c.drawImage(this.tiles, 0, 0, side, side);
    }
    this.drawAxes(c);
    if (this.show.points) this.drawPoints(c);
    if (this.show.density) this.drawDensity(c);
  }

  /** @param {CanvasRenderingContext2D} c */
  drawAxes(c) {
    const [x, y] = this.toPage([0, 0]), side = this.side;
    if (this.layout.linear) {
      c.strokeStyle = themeColor("rule");
      c.lineWidth = 1;
      c.beginPath();
      c.moveTo(Math.round(x) + 0.5, 0); c.lineTo(Math.round(x) + 0.5, side);
      c.moveTo(0, Math.round(y) + 0.5); c.lineTo(side, Math.round(y) + 0.5);
      if (!this.show.images) c.stroke();
    }
    c.font = "12px system-ui, sans-serif";
    const [across, up] = this.layout.axes;
    this.label(c, across, side - 8, side - 9, "right");
    if (up) this.label(c, up, 8, 17, "left");
    if (!this.layout.linear) return;
    const step = niceStep((2 * this.view.half) / 5);
    for (let k = Math.ceil((this.view.x - this.view.half) / step); k * step <= this.view.x + this.view.half; k++) {
      const left = this.toPage([k * step, 0])[0];
      if (left > 16 && left < side - 20 - 7 * across.length) this.label(c, shown(k * step, stepDigits(step)), left, side - 9, "center");
    }
    for (let k = Math.ceil((this.view.y - this.view.half) / step); k * step <= this.view.y + this.view.half; k++) {
      const top = this.toPage([0, k * step])[1];
      if (up && top > 34 && top < side - 26) this.label(c, shown(k * step, stepDigits(step)), 8, top + 4, "left");
    }
  }

  /** Text on a halo of the ground. @param {CanvasRenderingContext2D} c @param {string} text @param {number} x @param {number} y @param {CanvasTextAlign} align */
  label(c, text, x, y, align) {
    c.textAlign = align;
    c.lineJoin = "round";
    c.lineWidth = 4;
    c.strokeStyle = themeColor("ground");
    c.strokeText(text, x, y);
    c.fillStyle = themeColor("muted");
    c.fillText(text, x, y);
  }

  /** @param {CanvasRenderingContext2D} c */
  drawDensity(c) {
    const [x, y] = this.toPage([0, 0]), ratio = window.devicePixelRatio || 1;
    const units = (/** @type {() => void} */ draw) => {
      c.save();
      c.transform(this.scale, 0, 0, -this.scale, x, y);
      draw();
      c.restore();
    };
    for (const {path, prior} of this.contours) {
      units(() => {
        if (this.show.images) { // a halo, as images may have the colour of the line
          c.lineWidth = 4 / this.scale;
          c.strokeStyle = themeColor("ground");
          c.stroke(path);
        }
        c.lineWidth = 1.4 / this.scale;
        c.strokeStyle = themeColor(prior ? "muted" : "accent");
        if (prior) c.setLineDash([4 / this.scale, 3 / this.scale]);
        c.stroke(path);
      });
    }
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.circles.forEach((radius) => {
      c.beginPath();
      const centre = this.toPage(this.centre);
      c.arc(centre[0], centre[1], radius * this.scale, 0, 2 * Math.PI);
      if (this.show.images) {
        c.lineWidth = 4;
        c.strokeStyle = themeColor("ground");
        c.stroke();
      }
      c.lineWidth = 1.4;
      c.setLineDash([4, 3]);
      c.strokeStyle = themeColor("muted");
      c.stroke();
      c.setLineDash([]);
      this.label(c, `${radius}σ`, centre[0], centre[1] - radius * this.scale + 4, "center");
    });
  }

  /** @param {CanvasRenderingContext2D} c */
  drawPoints(c) {
    const radius = clamp(2.6 * Math.sqrt(1200 / Math.max(this.layout.points.length, 1)), 2.2, 5);
    const order = this.layout.points.map((_, i) => i).sort((i, j) => Number(this.visible(i)) - Number(this.visible(j)));
    for (const i of order) {
      const [x, y] = this.toPage(this.layout.points[i]);
      if (x < -9 || y < -9 || x > this.side + 9 || y > this.side + 9) continue;
      c.globalAlpha = this.visible(i) ? 0.85 : 0.07;
      c.fillStyle = this.colors[i];
      dot(c, x, y, radius, this.shapes[i]);
    }
    c.globalAlpha = 1;
  }
}

/** A mark of one of four shapes. @param {CanvasRenderingContext2D} c @param {number} x @param {number} y @param {number} r @param {string} [shape] */
function dot(c, x, y, r, shape = "dot") {
  c.beginPath();
  if (shape === "square") c.rect(x - r, y - r, 2 * r, 2 * r);
  else if (shape === "plus") { c.rect(x - r * 1.3, y - r / 2.5, 2.6 * r, r / 1.25); c.rect(x - r / 2.5, y - r * 1.3, r / 1.25, 2.6 * r); }
  else if (shape === "cross") { c.moveTo(x - r, y - r); c.lineTo(x + r, y - r); c.lineTo(x, y + r); }
  else c.arc(x, y, r, 0, 2 * Math.PI);
  c.fill();
}

/** 1, 2 or 5 times a power of ten. @param {number} least */
function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return power * ([1, 2, 5].find((k) => k * power >= least) || 10);
}

/** @param {number} step */
function stepDigits(step) {
  return Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
}
