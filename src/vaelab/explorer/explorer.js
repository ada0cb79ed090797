// The page: what is shown, and what the reader's hand does to it.
"use strict";

const NEAR = 5; // training images beside a decoded one
const NARROW = 928; // pixels, below which the page has one column: as in explorer.css
const PRIOR_DRAWS = 3000;
const TOLERANCE = 5e-3; // between this browser and PyTorch, as seen on one image

class Explorer {
  /** @param {Held} held */
  constructor(held) {
    this.held = held;
    this.model = new Model(held.model, new Weights(held.weights));
    const {shape, dim} = held.model, {points} = held, w = this.model.weights;
    this.shape = shape;
    this.codes = rowsOf(w.half(points.means), dim);
    this.deviations = points.deviations ? rowsOf(w.half(points.deviations), dim) : null;
    this.contexts = points.contexts ? rowsOf(w.half(points.contexts), this.model.width) : null;
    if (held.model.prior.family === "none") this.model.fit(this.codes);
    this.images = new Images(points.sheet, shape, points.count);
    this.training = new Images(held.train.sheet, shape, held.train.count);
    /** @type {Float32Array} */
    this.code = this.codes[0].slice();
    /** @type {Float32Array} */
    this.context = this.model.ordinary(this.contexts ? this.contexts[0] : this.model.unknown());
    /** @type {Posterior | null} of the image at hand */
    this.posterior = null;
    this.map = new LatentMap(byId("map", HTMLElement), byId("ground", HTMLCanvasElement), byId("marks", HTMLCanvasElement));
    this.picture = new Frame(byId("decoded", HTMLCanvasElement), shape, innerWidth < NARROW ? 140 : 280);
    this.seen = new Frame(byId("seen", HTMLCanvasElement), shape, 112);
    this.again = new Frame(byId("again", HTMLCanvasElement), shape, 112);
    this.cardImages = ["card-image", "card-again"].map((id) => new Frame(byId(id, HTMLCanvasElement), shape, 84));
    this.sketch = new Sketch(byId("sketch", HTMLCanvasElement), shape, held.ink, held.fit, () => this.later("encode", () => this.encode()));
    byId("sketch", HTMLElement).style.width = `${shape[2] * this.seen.scale}px`;
    /** @type {Map<string, number>} */
    this.waiting = new Map();
    this.over = -1;
    this.chosen = -1; // number of the class that the legend is pressed for
    this.decoded = this.model.decode(this.code, this.context);
    this.path = this.firstPath();
    /** @type {(() => void)[]} */
    this.setters = [];
    /** @type {Point | undefined} where the cursor was put on a map that is not linear */
    this.put = undefined;
    /** @type {Point[]} the path on the map */
    this.way = [];
    /** @type {View | undefined} */
    this.home = undefined;
    /** @type {Point[]} draws from a prior that is not standard normal, on the map */
    this.draws = [];
    /** @type {Float32Array[] | undefined} training images, once they are looked through */
    this.known = undefined;
    this.tileRun = 0;
  }

  // What is said of the page in plain words

  /** @param {number} d */
  nameOf(d) {
    const found = this.held.model.subspaces.find((s) => d >= s.first && d < s.first + s.width);
    return found ? `${found.name}${found.width > 1 ? subscript(d - found.first) : ""}` : `z${subscript(d)}`;
  }

  /** What the sides of an attribute are called: one that is 0 or 1 is cut at a half. @param {string} name @returns {[string, string]} */
  sidesOf(name) {
    const {labels} = this.held.model, found = labels && labels.attributes.find((a) => a.name === name);
    return found && found.location === 0.5 ? ["without", "with"] : ["low", "high"];
  }

  /** @param {number} i of a test image */
  titleOf(i) {
    const {labels, index} = this.held.points;
    const name = labels && labels[i] >= 0 ? this.held.classes[labels[i]] : "";
    return `${name ? `${name} · ` : ""}test image ${index[i]}`;
  }

  /** @param {string} text */
  notice(text) {
    byId("notices", HTMLElement).append(element("p", {class: "notice"}, text));
  }

  // Start

  async start() {
    await Promise.all([this.images.load(), this.training.load()]);
    for (const note of this.held.model.notes) this.notice(note);
    const lossy = [this.held.points, this.held.train].filter((part) => part && !part.sheet.exact);
    if (lossy.length) this.notice("Test and training images are shown with a little loss, to keep this page small. Codes and rates were computed from the images themselves.");
    this.check();
    this.fillChoices();
    const {mixture, prior} = this.held.model;
    byId("sampler-choice", HTMLElement).hidden = !mixture;
    byId("sampler-choice", HTMLElement).title = mixture ? mixture.about : "";
    byId("temperature", HTMLInputElement).disabled = prior.family === "draws" && !mixture; // it has no effect there
    this.setters = [
      dimensionSliders(this.held, this, this.codes, (d) => this.nameOf(d), () => this.change()),
      labelPicker(this.model, this, () => this.change(true)),
      toldAttributes(this.model, this, () => this.change(true)),
      directionHandles(this.held, this, () => this.change()),
      ...this.held.model.subspaces.map((s) => {
        const places = this.codes.slice(0, 800).map((z) => /** @type {Point} */ ([z[s.first], s.width > 1 ? z[s.first + 1] : 0]));
        const handle = new SubspaceHandle(s, this.sidesOf(s.name), this, places, () => this.change());
        return () => handle.draw();
      }),
    ];
    byId("attribute-section", HTMLElement).hidden = !byId("attributes", HTMLElement).children.length;
    this.listen();
    this.setLayout();
    this.take(0);
    this.path.draw();
    document.body.dataset.ready = "yes";
  }

  /** Compare what this browser makes of one image with what PyTorch made of it. */
  check() {
    const known = this.held.check;
    if (!known) return;
    const image = Float32Array.from(bytesOf(known.image), (v) => v / 255);
    const {mean, spread} = this.model.encode(image, known.context), expected = singlesOf(known.decoded);
    const deviation = mean.map((_, d) => Math.hypot(...spread.map((s) => s[d]), 0));
    const decoded = this.model.decode(known.mean, known.context);
    const worst = Math.max(
      ...mean.map((v, d) => Math.abs(v - known.mean[d])), ...deviation.map((v, d) => Math.abs(v - known.deviation[d])),
      decoded.reduce((most, v, i) => Math.max(most, Math.abs(v - expected[i])), 0));
    if (!(worst < TOLERANCE)) this.notice(`This browser computes otherwise than PyTorch (by up to ${worst.toPrecision(2)} on a test image): do not trust what it shows.`);
  }

  /** The path at the start: from the first test image to one of another class, rather far away. */
  firstPath() {
    const {labels} = this.held.points, distance = (/** @type {number} */ i) => Math.hypot(...this.codes[i].map((v, d) => v - this.codes[0][d]));
    const others = this.codes.map((_, i) => i).filter((i) => !labels || labels[i] !== labels[0]).sort((i, j) => distance(i) - distance(j));
    const far = others[Math.floor(0.8 * others.length)] || 0;
    const pin = (/** @type {number} */ i) => ({code: this.codes[i].slice(), context: this.contextOf(i)});
    return new Path(this.model, pin(0), pin(far), (code, context) => {
      this.code = code.slice();
      this.context = context.slice();
      this.change(true);
    });
  }

  /** @param {number} i of a test image */
  contextOf(i) {
    return this.model.ordinary(this.contexts ? this.contexts[i] : this.model.unknown());
  }

  fillChoices() {
    const {dim} = this.held.model, {layouts, dimensions, points, classes} = this.held;
    const option = (/** @type {string} */ value, /** @type {string} */ text) => element("option", {value}, text);
    const layout = byId("layout", HTMLSelectElement);
    layout.append(option("plane", "two dimensions"));
    if (layouts.pca) layout.append(option("pca", "principal components"));
    if (layouts.tsne) layout.append(option("tsne", "t-SNE"));
    for (const [k, id] of ["across", "up"].entries()) {
      const select = byId(id, HTMLSelectElement), [first, second] = dim > 2 ? dimensions.order : [0, 1];
      for (const d of dim > 2 ? dimensions.order : [0, 1]) select.append(option(String(d), this.nameOf(d)));
      select.value = String(k ? second : first);
    }
    byId("layout-choice", HTMLElement).hidden = dim <= 2;
    const colour = byId("colour", HTMLSelectElement);
    if (points.labels && classes.length > 1) colour.append(option("label", "class"));
    for (const name of Object.keys(points.attributes)) colour.append(option(`attribute ${name}`, name));
    colour.append(option("none", "nothing"));
    byId("colour-choice", HTMLElement).hidden = colour.options.length < 2;
    byId("centre-choice", HTMLElement).hidden = !this.held.ink;
    byId("pen-choice", HTMLElement).hidden = this.shape[0] === 1;
    byId("own", HTMLElement).hidden = !this.held.model.encoder;
  }

  // The map

  setLayout() {
    const {layouts, model} = this.held, kind = byId("layout", HTMLSelectElement).value;
    const dims = ["across", "up"].map((id) => Number(byId(id, HTMLSelectElement).value));
    if (kind === "pca" && layouts.pca) this.map.layout = principal(layouts.pca.centre, layouts.pca.components, layouts.pca.shares, this.codes);
    else if (kind === "tsne" && layouts.tsne) this.map.layout = embedded(layouts.tsne, this.codes);
    else this.map.layout = planeOf(model.dim > 1 ? dims : [0], this.codes, (d) => this.nameOf(d));
    if (model.dim === 1 && this.deviations) {
      this.map.layout.points = this.codes.map(([z], i) => [z, this.deviations ? this.deviations[i][0] : 0]);
      this.map.layout.axes = ["z₀", "its deviation"];
    }
    for (const id of ["across", "up"]) byId(`${id}-choice`, HTMLElement).hidden = kind !== "plane";
    this.map.resize();
    this.setHome();
    this.put = undefined;
    this.findWay();
    this.findContours();
    this.color();
    this.redraw();
  }

  /** The view at first: all there is to see. */
  setHome() {
    const {map} = this, {layout} = map, flat = this.held.model.dim === 1, marks = [this.code, ...this.path.pins.map((pin) => pin.code)].map((z) => layout.place(z));
    const linear = layout.linear && !flat;
    map.centre = layout.place(new Float32Array(this.held.model.dim));
    this.draws = !linear || this.standard || this.held.model.prior.family === "none" ? [] : Array.from({length: PRIOR_DRAWS}, () => layout.place(this.model.draw(this.anyContext(), 1)));
    const [x, y] = map.centre, prior = linear && this.standard ? /** @type {Point[]} */ ([[x - 2, y - 2], [x + 2, y + 2]]) : this.draws;
    map.view = viewOf(layout.points, linear ? this.spread : () => [0, 0], prior, this.standard && layout.linear, marks);
    map.clearCorner(marks);
    this.home = {...map.view};
  }

  /** The deviations of the posterior of a point on the map. @param {number} i @returns {Point} */
  spread = (i) => {
    if (!this.deviations) return [0, 0];
    const parts = Array.from(this.deviations[i], (s, d) => this.map.layout.project(this.axis(d, s)));
    return /** @type {Point} */ ([0, 1].map((k) => Math.hypot(...parts.map((p) => p[k]))));
  };

  /** Whether the prior is N(0, I), and the model was trained with it. */
  get standard() {
    const {prior, subspaces} = this.held.model;
    return prior.family === "normal" && !subspaces.length;
  }

  findContours() {
    const {layout} = this.map, view = this.map.view, flat = this.held.model.dim === 1;
    const even = /** @type {Point} */ ([0.05 * view.half, 0.05 * view.half]);
    const spread = !this.deviations || !layout.linear || flat ? () => even : this.spread;
    const grids = [{grid: densityOf(layout.points, spread, view), prior: false}];
    this.map.circles = [];
    const prior = this.held.model.prior.family !== "none" && layout.linear && !flat;
    if (prior) {
      if (this.standard) {
        this.map.circles = [1, 2];
      } else {
        const {draws} = this;
        const wide = [0, 1].map((k) => Math.sqrt(draws.reduce((sum, p) => sum + p[k] ** 2, 0) / draws.length) * PRIOR_DRAWS ** (-1 / 6));
        grids.push({grid: densityOf(draws, () => /** @type {Point} */ (wide.map((s) => 0.7 * s)), view), prior: true});
      }
    }
    this.map.contours = grids.flatMap(({grid, prior}) => MASSES.map((mass) => ({path: contour(grid, levelOf(grid, mass)), prior})));
    byId("density-note", HTMLElement).textContent = !prior
      ? "Blue lines hold 39 % and 86 % of the points."
      : `Blue lines hold 39 % and 86 % of the aggregate posterior, dashed ones of the prior (as 1σ and 2σ of a normal do): where they agree, draws look like images.`;
  }

  /** A difference of codes along one dimension. @param {number} d @param {number} size */
  axis(d, size) {
    const made = new Float32Array(this.held.model.dim);
    made[d] = size;
    return made;
  }

  /** What the decoder is told, as it was for some test image. */
  anyContext() {
    return this.contexts ? this.contexts[Math.floor(Math.random() * this.contexts.length)] : this.context;
  }

  /** Colour the points, and say which colour is what. */
  color() {
    const {points, classes, colors, markers} = this.held, kind = byId("colour", HTMLSelectElement).value;
    const legend = byId("legend", HTMLElement), values = points.attributes[kind.replace("attribute ", "")];
    legend.replaceChildren();
    this.map.shapes = [];
    this.map.visible = () => true;
    if (kind === "label" && points.labels) {
      const labels = points.labels;
      this.map.colors = labels.map((k) => (k < 0 ? themeColor("neutral") : colors[k % colors.length]));
      this.map.shapes = labels.map((k) => markers[Math.floor(Math.max(k, 0) / colors.length) % markers.length]);
      this.map.visible = (i) => this.chosen < 0 || labels[i] === this.chosen;
      [...new Set(labels)].filter((k) => k >= 0).sort((a, b) => a - b).slice(0, 40).forEach((k) => {
        const button = element("button", {type: "button", "aria-pressed": String(k === this.chosen)},
          element("i", {style: `background:${colors[k % colors.length]}`}), classes[k]);
        button.addEventListener("click", () => { this.chosen = this.chosen === k ? -1 : k; this.color(); this.redraw(); });
        legend.append(button);
      });
    } else if (values) {
      const known = values.filter((v) => v !== null).sort((a, b) => a - b), binary = known.every((v) => v === 0 || v === 1);
      const low = known[Math.floor(0.02 * known.length)], high = known[Math.floor(0.98 * known.length)];
      const paint = (/** @type {number} */ v) => (binary ? colors[v] : viridis(clamp((v - low) / (high - low || 1), 0, 1)));
      this.map.colors = values.map((v) => (v === null ? themeColor("rule") : paint(v)));
      if (binary) for (const v of [0, 1]) legend.append(element("span", {}, element("i", {style: `background:${colors[v]}`}), v ? "with" : "without"));
      else legend.append(element("span", {class: "ramp"}, shown(low), element("b", {style: `background:linear-gradient(90deg,${[0, 0.25, 0.5, 0.75, 1].map(viridis).join(",")})`}), shown(high)));
    } else this.map.colors = this.codes.map(() => themeColor("accent"));
  }

  redraw() {
    this.map.drawGround();
    this.drawMarks();
    this.later("tiles", () => this.tile(), 160);
  }

  drawMarks() {
    const c = drawing(this.map.marks), {map} = this, accent = themeColor("accent"), ground = themeColor("ground");
    c.clearRect(0, 0, map.side, map.side);
    this.drawPath(c);
    if (this.posterior && map.layout.linear && this.held.model.dim > 1) this.drawEllipse(c, this.posterior);
    if (this.over >= 0) {
      const [x, y] = map.toPage(map.layout.points[this.over]);
      c.beginPath();
      c.arc(x, y, 6.5, 0, 2 * Math.PI);
      c.lineWidth = 2;
      c.strokeStyle = themeColor("text");
      c.stroke();
    }
    const [x, y] = map.toPage(this.at);
    for (const [color, width] of /** @type {[string, number][]} */ ([[ground, 6], [accent, 2.5]])) {
      c.strokeStyle = color;
      c.lineWidth = width;
      c.beginPath();
      c.arc(x, y, 10, 0, 2 * Math.PI);
      c.stroke();
    }
    c.beginPath();
    c.arc(x, y, 2.5, 0, 2 * Math.PI);
    c.fillStyle = accent;
    c.fill();
  }

  /** Where the cursor is: on a map that is not linear, where it was put. @returns {Point} */
  get at() {
    if (!this.map.layout.linear && this.put) return this.put;
    return this.map.layout.place(this.code);
  }

  findWay() {
    this.way = Array.from({length: 41}, (_, i) => this.map.layout.place(this.path.at(i / 40).code));
  }

  changePath() {
    this.path.draw();
    this.findWay();
    this.drawMarks();
  }

  /** @param {CanvasRenderingContext2D} c */
  drawPath(c) {
    const way = this.way.map((place) => this.map.toPage(place)), ends = [way[0], way[way.length - 1]];
    c.beginPath();
    for (const [x, y] of way) c.lineTo(x, y);
    c.lineWidth = 4;
    c.strokeStyle = themeColor("ground");
    c.stroke();
    c.lineWidth = 1.6;
    c.strokeStyle = themeColor("text");
    c.stroke();
    c.font = "600 11px system-ui, sans-serif";
    c.textAlign = "center";
    ends.forEach(([x, y], k) => {
      c.beginPath();
      c.moveTo(x, y);
      c.arc(x, y - 22, 10, 0.8 * Math.PI, 2.2 * Math.PI);
      c.closePath();
      c.lineWidth = 3;
      c.strokeStyle = themeColor("ground");
      c.stroke();
      c.fillStyle = themeColor("text");
      c.fill();
      c.fillStyle = themeColor("ground");
      c.fillText("AB"[k], x, y - 18);
    });
  }

  /** One and two deviations of the posterior, as seen in the plane. @param {CanvasRenderingContext2D} c @param {Posterior} posterior */
  drawEllipse(c, {mean, spread}) {
    const {map} = this, parts = spread.map((s) => map.layout.project(s));
    const [xx, xy, yy] = [[0, 0], [0, 1], [1, 1]].map(([i, j]) => parts.reduce((sum, p) => sum + p[i] * p[j], 0));
    const middle = (xx + yy) / 2, gap = Math.hypot((xx - yy) / 2, xy), angle = 0.5 * Math.atan2(2 * xy, xx - yy);
    const [x, y] = map.toPage(map.layout.place(mean));
    for (const sigma of [1, 2]) {
      c.beginPath();
      c.ellipse(x, y, sigma * Math.sqrt(middle + gap) * map.scale, sigma * Math.sqrt(Math.max(middle - gap, 0)) * map.scale, -angle, 0, 2 * Math.PI);
      c.fillStyle = themeColor("accent");
      c.globalAlpha = 0.14;
      c.fill();
      c.globalAlpha = 1;
      c.lineWidth = 1.6;
      c.strokeStyle = themeColor("accent");
      c.stroke();
    }
  }

  /** Decode the whole map, a few places at a time. */
  tile() {
    const {map} = this, run = ++this.tileRun;
    if (!map.show.images) return;
    const [, height, width] = this.shape, scale = Math.max(1, Math.floor(34 / Math.max(height, width)));
    const [wide, high] = [width * scale, height * scale], [columns, rows] = [Math.ceil(map.side / wide), Math.ceil(map.side / high)];
    const small = element("canvas", {width: String(width), height: String(height)});
    map.tiles = element("canvas", {width: String(map.side), height: String(map.side)});
    const c = drawing(map.tiles);
    c.imageSmoothingEnabled = false;
    const order = Array.from({length: columns * rows}, (_, i) => [i % columns, Math.floor(i / columns)])
      .sort(([a, b], [p, q]) => Math.hypot(a - columns / 2, b - rows / 2) - Math.hypot(p - columns / 2, q - rows / 2));
    const code = this.code.slice(), context = this.context.slice();
    let drawn = performance.now();
    const step = () => {
      if (run !== this.tileRun) return;
      const end = performance.now() + 12;
      while (order.length && performance.now() < end) {
        const [x, y] = /** @type {number[]} */ (order.shift());
        const at = map.toMap([(x + 0.5) * wide, (y + 0.5) * high]);
        drawing(small).putImageData(rgba(this.model.decode(map.layout.move(code, at), context), this.shape), 0, 0);
        c.drawImage(small, x * wide, y * high, wide, high);
      }
      if (!order.length || performance.now() > drawn + 150) {
        map.drawGround();
        drawn = performance.now();
      }
      if (order.length) requestAnimationFrame(step);
    };
    step();
  }

  // What follows a change

  /** Do something at the next frame, or after some milliseconds; asked for twice it is done once. @param {string} what @param {() => void} act @param {number} [wait] */
  later(what, act, wait) {
    const held = this.waiting.get(what);
    if (wait === undefined) {
      if (held === undefined) this.waiting.set(what, requestAnimationFrame(() => { this.waiting.delete(what); act(); }));
      return;
    }
    clearTimeout(held);
    this.waiting.set(what, setTimeout(() => { this.waiting.delete(what); act(); }, wait));
  }

  /** The code or what the decoder is told has changed. @param {boolean} [told] */
  change(told = false) {
    this.later("render", () => this.render());
    if (told || this.held.model.dim > 2) this.later("tiles", () => this.tile(), 160);
  }

  render() {
    this.decoded = this.model.decode(this.code, this.context);
    this.picture.show(this.decoded);
    this.drawMarks();
    for (const set of this.setters) set();
    this.later("slow", () => { this.tellPlace(); this.findNearest(); }, 180);
  }

  tellPlace() {
    const {dimensions, model} = this.held, some = dimensions.order.slice(0, model.dim > 3 ? 3 : model.dim).sort((a, b) => a - b);
    const text = some.map((d) => `${this.nameOf(d)} = ${shown(this.code[d])}`).join(", ");
    byId("place", HTMLElement).textContent = text + (some.length < model.dim ? ", …" : "");
    const near = this.map.nearest(this.map.toPage(this.at), Infinity);
    byId("said", HTMLElement).textContent = `${text}. Nearest on the map: ${near < 0 ? "nothing" : this.titleOf(near)}.`;
  }

  /** Training images that are most like the decoded one, pixel by pixel. */
  findNearest() {
    const {train} = this.held, size = this.decoded.length;
    if (!this.known) this.known = Array.from({length: train.count}, (_, i) => this.training.at(i));
    const found = this.known.map((image, i) => {
      let sum = 0;
      for (let k = 0; k < size; k++) sum += (image[k] - this.decoded[k]) ** 2;
      return {i, distance: Math.sqrt(sum / size)};
    }).sort((a, b) => a.distance - b.distance).slice(0, NEAR);
    const box = byId("nearest", HTMLElement), known = this.known;
    box.replaceChildren(...found.map(({i, distance}) => {
      const canvas = element("canvas", {role: "img"}), name = train.labels && train.labels[i] >= 0 ? this.held.classes[train.labels[i]] : "";
      canvas.setAttribute("aria-label", `training image${name ? ` of class ${name}` : ""}, distance ${shown(distance, 3)}`);
      new Frame(canvas, this.shape, 56).show(known[i]);
      return element("figure", {}, canvas, element("figcaption", {}, shown(distance, 3)));
    }));
    const least = found[0].distance, close = least < 0.4 * train.typical;
    byId("nearest-note", HTMLElement).textContent = `Nearest to the decoded image, by the root mean square of the pixels' difference, of ${train.count.toLocaleString("en")} (of ${train.total.toLocaleString("en")}) training images. `
      + `A test image has its nearest at ${shown(train.typical, 3)}${close ? ": this image is much nearer, and may be remembered." : "."}`;
  }

  // What the reader does

  /** Go on from a test image. @param {number} i */
  take(i) {
    this.context = this.contextOf(i);
    const image = this.images.at(i);
    this.sketch.set(image);
    this.begin(image, this.held.model.encoder ? this.model.encode(image, this.context) : {mean: this.codes[i], spread: []});
    byId("source", HTMLElement).textContent = `${this.titleOf(i)}.`;
    if (!this.map.layout.linear) this.put = this.map.layout.points[i];
  }

  /** Go on from what is drawn, dropped or opened. */
  encode() {
    if (!this.held.model.encoder) return;
    const image = this.sketch.image(), {labels} = this.held.model;
    const read = this.model.read(image, this.model.unknown());
    this.context = this.model.ordinary(this.held.model.labeler || !labels ? read : this.context);
    this.begin(image, this.model.encode(image, this.context));
    const k = Array.from(this.context.subarray(0, this.model.classes)).indexOf(1);
    byId("source", HTMLElement).textContent = this.held.model.labeler && k >= 0 ? `Your image, read as ${this.held.classes[k]}.` : "Your image.";
  }

  /** @param {Float32Array} image @param {Posterior} posterior */
  begin(image, posterior) {
    this.posterior = posterior;
    this.code = posterior.mean.slice();
    this.put = undefined;
    this.seen.show(image);
    this.again.show(this.model.decode(this.code, this.context));
    this.change(true);
  }

  /** @param {Point} at in pixels of the map */
  go(at) {
    const place = this.map.toMap(at);
    this.code = this.map.layout.move(this.code, place);
    this.put = this.map.layout.linear ? undefined : place;
    this.change();
  }

  random() {
    const temperature = Number(byId("temperature", HTMLInputElement).value);
    const {mixture} = this.held.model;
    this.code = mixture && byId("sampler", HTMLSelectElement).value === "mixture"
      ? this.model.drawMixture(mixture, this.context, temperature)
      : this.model.draw(this.context, temperature);
    this.put = undefined;
    this.change(true);
  }

  /** @param {number} k @param {PointerEvent | null} event */
  hover(k, event) {
    const card = byId("card", HTMLElement);
    card.hidden = k < 0 || !event;
    if (k !== this.over) {
      this.over = k;
      if (k >= 0) {
        const image = this.images.at(k);
        this.cardImages[0].show(image);
        this.cardImages[1].show(this.model.decode(this.codes[k], this.contextOf(k)));
        byId("card-title", HTMLElement).textContent = this.titleOf(k);
      }
      this.later("marks", () => this.drawMarks());
    }
    if (!card.hidden && event) {
      const [x, y] = this.map.toPage(this.map.layout.points[k]), left = x > this.map.side / 2, top = y > this.map.side / 2;
      card.style.left = left ? "auto" : `${x + 14}px`;
      card.style.right = left ? `${this.map.side - x + 14}px` : "auto";
      card.style.top = top ? "auto" : `${y + 14}px`;
      card.style.bottom = top ? `${this.map.side - y + 14}px` : "auto";
    }
  }

  zoom(/** @type {number} */ factor, /** @type {Point} */ about = [this.map.side / 2, this.map.side / 2]) {
    this.map.zoom(factor, about);
    this.later("redraw", () => this.redraw());
  }

  reset() {
    if (this.home) this.map.view = {...this.home};
    this.redraw();
  }

  listen() {
    this.listenToMap();
    this.listenToKeys();
    const on = (/** @type {string} */ id, /** @type {string} */ kind, /** @type {(event: Event) => void} */ act) => byId(id, HTMLElement).addEventListener(kind, act);
    for (const id of ["layout", "across", "up"]) on(id, "change", () => this.setLayout());
    on("colour", "change", () => { this.chosen = -1; this.color(); this.redraw(); });
    for (const name of /** @type {("points" | "density" | "images")[]} */ (["points", "density", "images"])) {
      on(`show-${name}`, "change", () => { this.map.show[name] = byId(`show-${name}`, HTMLInputElement).checked; this.redraw(); });
    }
    on("zoom-in", "click", () => this.zoom(1.5));
    on("zoom-out", "click", () => this.zoom(1 / 1.5));
    on("zoom-home", "click", () => this.reset());
    on("random", "click", () => this.random());
    on("save", "click", () => this.path.enlarged(this.decoded, 8).toBlob((blob) => { if (blob) download("decoded.png", blob, "image/png"); }));
    on("temperature", "input", () => { byId("temperature-value", HTMLElement).textContent = Number(byId("temperature", HTMLInputElement).value).toFixed(2); });
    on("clear", "click", () => { this.sketch.clear(); this.encode(); });
    on("invert", "click", () => this.sketch.invert());
    on("pen", "input", () => { this.sketch.color = byId("pen", HTMLInputElement).value; });
    on("centre", "change", () => { this.sketch.centred = byId("centre", HTMLInputElement).checked; this.encode(); });
    on("file", "change", () => { const [file] = byId("file", HTMLInputElement).files || []; if (file) this.open(file); });
    ["a", "b"].forEach((id, k) => on(`pin-${id}`, "click", () => {
      this.path.pins[k] = {code: this.code.slice(), context: this.context.slice()};
      this.changePath();
    }));
    on("arc", "change", () => { this.path.arc = byId("arc", HTMLInputElement).checked; this.changePath(); });
    on("gif", "click", () => download("path.gif", this.path.gif(), "image/gif"));
    on("png", "click", () => this.path.png().then((blob) => { if (blob) download("path.png", blob, "image/png"); }));
    for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => {
      event.preventDefault();
      const [file] = (kind === "drop" && event instanceof DragEvent && event.dataTransfer && event.dataTransfer.files) || [];
      if (file) this.open(file);
    });
    document.addEventListener("paste", (event) => { const [file] = (event.clipboardData && event.clipboardData.files) || []; if (file) this.open(file); });
    new ResizeObserver(() => { if (this.map.resize()) this.redraw(); }).observe(this.map.box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { themeColors.clear(); this.color(); this.redraw(); this.change(); });
  }

  /** @param {Blob} file */
  async open(file) {
    byId("wrong", HTMLElement).textContent = await this.sketch.open(file);
  }

  listenToMap() {
    const {box} = this.map;
    /** @type {Map<number, Point>} */
    const fingers = new Map();
    let panning = false, moved = 0;
    const at = (/** @type {MouseEvent} */ event) => {
      const rectangle = box.getBoundingClientRect();
      return /** @type {Point} */ ([event.clientX - rectangle.left - box.clientLeft, event.clientY - rectangle.top - box.clientTop]);
    };
    const middle = () => [...fingers.values()].reduce((sum, p) => /** @type {Point} */ ([sum[0] + p[0] / fingers.size, sum[1] + p[1] / fingers.size]), /** @type {Point} */ ([0, 0]));
    const apart = () => { const [p, q] = [...fingers.values()]; return Math.max(20, Math.hypot(p[0] - q[0], p[1] - q[1])); };
    box.addEventListener("pointerdown", (event) => {
      if (event.target instanceof HTMLButtonElement) return;
      box.setPointerCapture(event.pointerId);
      box.focus({preventScroll: true});
      fingers.set(event.pointerId, at(event));
      panning = event.shiftKey || event.button > 0 || fingers.size > 1;
      moved = 0;
      this.hover(-1, null);
      if (!panning) this.go(at(event));
    });
    box.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId), now = at(event);
      if (!before) { if (event.pointerType === "mouse") this.hover(this.map.nearest(now, 11), event); return; }
      moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
      if (!panning) { fingers.set(event.pointerId, now); this.go(now); return; }
      const [from, wide] = [middle(), fingers.size > 1 ? apart() : 1];
      fingers.set(event.pointerId, now);
      const to = middle();
      this.map.pan((from[0] - to[0]) / this.map.scale, (to[1] - from[1]) / this.map.scale);
      this.zoom(fingers.size > 1 ? apart() / wide : 1, to);
    });
    const lift = (/** @type {PointerEvent} */ event) => {
      const last = fingers.get(event.pointerId);
      fingers.delete(event.pointerId);
      if (!last || panning || moved > 4) return;
      const near = this.map.nearest(last, event.pointerType === "mouse" ? 9 : 16);
      if (near >= 0) this.take(near);
    };
    box.addEventListener("pointerup", lift);
    box.addEventListener("pointercancel", (event) => { fingers.delete(event.pointerId); });
    box.addEventListener("pointerleave", () => this.hover(-1, null));
    box.addEventListener("contextmenu", (event) => event.preventDefault());
    box.addEventListener("dblclick", (event) => event.preventDefault());
    box.addEventListener("wheel", (event) => {
      if (document.activeElement !== box && !event.ctrlKey) return; // the page scrolls until the map is used
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0018)), at(event));
    }, {passive: false});
  }

  listenToKeys() {
    /** @type {Record<string, Point>} */
    const arrows = {ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
    this.map.box.addEventListener("keydown", (event) => {
      const step = arrows[event.key], {key} = event;
      if (step && event.altKey) {
        this.map.pan((40 * step[0]) / this.map.scale, (-40 * step[1]) / this.map.scale);
        this.redraw();
      } else if (step) {
        const [x, y] = this.map.toPage(this.at), size = event.shiftKey ? 1 : 8;
        this.go([x + size * step[0], y + size * step[1]]);
      } else if (key === "+" || key === "=") this.zoom(1.25, this.map.toPage(this.at));
      else if (key === "-") this.zoom(1 / 1.25, this.map.toPage(this.at));
      else if (key === "0") this.reset();
      else if (key === "r") this.random();
      else if (key === "a" || key === "b") byId(`pin-${key}`, HTMLElement).click();
      else if (key === "Enter") { const near = this.map.nearest(this.map.toPage(this.at), Infinity); if (near >= 0) this.take(near); }
      else return;
      event.preventDefault();
    });
  }
}

/** @param {Float32Array} values @param {number} width */
function rowsOf(values, width) {
  return Array.from({length: width ? values.length / width : 0}, (_, i) => values.slice(i * width, (i + 1) * width));
}

const explorer = new Explorer(JSON.parse(byId("held", HTMLScriptElement).textContent || ""));
explorer.start();
