// What moves a code beside the map: a slider for each dimension, labels, handles on attributes.
"use strict";

/**
 * What the controls read and change.
 * @typedef {object} State
 * @property {Float32Array} code
 * @property {Float32Array} context
 */

/** A labelled slider. @param {string} name @param {number} low @param {number} high @param {(value: number) => void} moved */
function slider(name, low, high, moved) {
  const input = element("input", {
    type: "range", min: String(low), max: String(high), step: String((high - low) / 200), "aria-label": name,
  });
  const value = element("output", {"aria-hidden": "true"});
  input.addEventListener("input", () => moved(Number(input.value)));
  const set = (/** @type {number} */ v, /** @type {string} */ text = shown(v)) => {
    if (text === value.textContent && Math.abs(Number(input.value) - v) < (high - low) / 200) return;
    input.value = String(v);
    value.textContent = text;
    input.setAttribute("aria-valuetext", text);
  };
  return {input, value, set};
}

/**
 * A slider for each dimension, those that tell most first; those not in use are folded away.
 * @param {Held} held @param {State} state @param {Float32Array[]} codes @param {(d: number) => string} nameOf @param {() => void} changed
 */
function dimensionSliders(held, state, codes, nameOf, changed) {
  const {rates, variances, active, order} = held.dimensions, use = rates || variances;
  const most = Math.max(...use, 1e-9), unit = rates ? "nats" : "variance";
  const live = byId("sliders", HTMLElement), dead = byId("dead-sliders", HTMLElement);
  const sliders = order.map((d) => {
    const values = codes.map((z) => Math.abs(z[d])).sort((a, b) => a - b);
    const reach = Math.max(3, Math.ceil(values[Math.floor(0.998 * (values.length - 1))] || 0));
    const made = slider(`${nameOf(d)}${active[d] ? "" : ", not in use"}`, -reach, reach, (v) => {
      state.code = Float32Array.from(state.code, (old, k) => (k === d ? v : old));
      changed();
    });
    const bar = element("i", {style: `width:${(2.2 * Math.max(use[d], 0)) / most}rem`});
    (active[d] ? live : dead).append(element("div", {class: "slider"},
      element("span", {class: "name"}, nameOf(d)),
      element("span", {class: "use", title: `${shown(use[d], 3)} ${unit}`}, bar, `${shown(use[d], use[d] < 0.1 ? 2 : 1)}`),
      made.input, made.value));
    return {d, set: made.set};
  });
  const count = active.filter((on) => !on).length;
  byId("dead", HTMLDetailsElement).hidden = count === 0;
  byId("dead", HTMLDetailsElement).open = count === order.length;
  byId("dead-title", HTMLElement).textContent = `${count} dimension${count > 1 ? "s" : ""} not in use: hardly anything changes with ${count > 1 ? "them" : "it"}`;
  byId("use-unit", HTMLElement).textContent = rates
    ? "Ordered by rate: the bar is the mean KL divergence of each dimension on the test images, in nats."
    : "Ordered by the variance of each dimension over the test images, shown as a bar.";
  return () => sliders.forEach(({d, set}) => set(state.code[d]));
}

/** A choice of the class that the decoder is told. @param {Model} model @param {State} state @param {() => void} changed */
function labelPicker(model, state, changed) {
  const labels = model.about.labels, box = byId("label-picker", HTMLElement);
  if (!labels || !labels.decoding.includes("label")) return () => {};
  const names = [...labels.classes, ...(labels.unknown ? ["unknown"] : [])];
  const pick = (/** @type {number} */ k) => {
    state.context = Float32Array.from(state.context, (v, i) => (i < model.classes ? Number(i === k) : v));
    changed();
  };
  const current = () => {
    const k = Array.from(state.context.subarray(0, model.classes)).findIndex((v) => v > 0.5);
    return k < 0 ? names.length - 1 : k;
  };
  if (names.length > 24) {
    const select = element("select", {"aria-label": "Class"}, ...names.map((name) => element("option", {}, name)));
    select.addEventListener("change", () => pick(select.selectedIndex));
    box.append(element("span", {class: "legend"}, "Class"), select);
    return () => { select.selectedIndex = current(); };
  }
  const buttons = names.map((name, k) => {
    const radio = element("input", {type: "radio", name: "class", value: String(k)});
    radio.addEventListener("change", () => pick(k));
    return {radio, label: element("label", {}, radio, element("span", {}, name))};
  });
  box.append(element("fieldset", {class: "segments"}, element("legend", {}, "Class"), ...buttons.map((b) => b.label)));
  return () => { buttons[current()].radio.checked = true; };
}

/** Sliders for the attributes that the decoder is told. @param {Model} model @param {State} state @param {() => void} changed */
function toldAttributes(model, state, changed) {
  const labels = model.about.labels, box = byId("attributes", HTMLElement);
  if (!labels) return () => {};
  const count = labels.attributes.length;
  const made = labels.attributes.map((attribute, a) => {
    if (!labels.decoding.includes(attribute.name)) return () => {};
    const one = slider(attribute.name, attribute.low, attribute.high, (v) => {
      const at = model.classes + a;
      state.context = Float32Array.from(state.context, (old, i) => (i === at ? v : i === at + count ? 1 : old));
      changed();
    });
    box.append(element("div", {class: "slider"}, element("span", {class: "name wide"}, attribute.name), one.input, one.value));
    return () => {
      const v = state.context[model.classes + a];
      one.set(v, labels.cut ? shown((v + 1) / 2) : shown(v * attribute.scale + attribute.location));
    };
  });
  return () => made.forEach((set) => set());
}

/** Sliders along directions that were found on the training images; 0 and 1 are what images below and above the median are like. @param {Held} held @param {State} state @param {() => void} changed */
function directionHandles(held, state, changed) {
  const box = byId("attributes", HTMLElement);
  const made = held.handles.map(({name, vector, means}) => {
    const along = () => vector.reduce((sum, u, d) => sum + u * state.code[d], 0);
    const one = slider(name, -1, 2, (v) => {
      const step = means[0] + v * (means[1] - means[0]) - along();
      state.code = state.code.map((z, d) => z + step * vector[d]);
      changed();
    });
    box.append(element("div", {class: "slider"}, element("span", {class: "name wide"}, name), one.input, one.value));
    return () => one.set((along() - means[0]) / (means[1] - means[0] || 1));
  });
  return () => made.forEach((set) => set());
}

/** The subspace of an attribute (CSVAE): a plane with a dot to drag, or a slider where it has one dimension. */
class SubspaceHandle {
  /** @param {Subspace} subspace @param {[string, string]} words for the two sides @param {State} state @param {Point[]} points @param {() => void} changed */
  constructor(subspace, words, state, points, changed) {
    this.subspace = subspace;
    this.words = words;
    this.state = state;
    this.points = points;
    this.changed = changed;
    const {means, scales, name, width} = subspace;
    this.low = Math.min(...means.map((m, i) => m - 2.6 * scales[i]));
    this.high = Math.max(...means.map((m, i) => m + 2.6 * scales[i]));
    this.side = 220;
    this.canvas = element("canvas", {class: "plane", tabindex: "0", role: "application", "aria-label": `${name}: move with the arrow keys`});
    const ratio = window.devicePixelRatio || 1, height = width > 1 ? this.side : 40;
    this.height = height;
    this.canvas.width = this.side * ratio;
    this.canvas.height = height * ratio;
    this.canvas.style.width = `${this.side}px`;
    this.canvas.style.height = `${height}px`;
    const ends = words.map((word, side) => {
      const button = element("button", {type: "button", "aria-label": `${word} ${name}`}, word);
      button.addEventListener("click", () => this.go(means[side], means[side], true));
      return button;
    });
    byId("attributes", HTMLElement).append(
      element("figure", {class: "handle"}, element("figcaption", {}, name), this.canvas, element("div", {class: "row"}, ...ends)));
    this.listen();
  }

  /** @param {number} x @param {number} y @param {boolean} [all] of more than two dimensions */
  go(x, y, all = false) {
    const {first, width} = this.subspace, at = [x, y];
    this.state.code = this.state.code.map((v, d) => {
      const k = d - first;
      if (k < 0 || k >= width) return v;
      return k < 2 ? clamp(at[k], this.low, this.high) : all ? x : v;
    });
    this.changed();
  }

  get at() {
    const {first, width} = this.subspace, code = this.state.code;
    return [code[first], width > 1 ? code[first + 1] : 0];
  }

  /** Pixels of a place. @param {number} x @param {number} y */
  place(x, y) {
    const unit = this.side / (this.high - this.low);
    return [(x - this.low) * unit, this.subspace.width > 1 ? this.side - (y - this.low) * unit : this.height / 2];
  }

  draw() {
    const c = drawing(this.canvas), ratio = window.devicePixelRatio || 1, {means, scales, width} = this.subspace;
    const unit = this.side / (this.high - this.low);
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, this.side, this.height);
    c.fillStyle = themeColor("neutral");
    c.globalAlpha = 0.3;
    for (const [px, py] of this.points) {
      const [x, y] = this.place(px, py);
      c.fillRect(x - 1, y - 1, 2, 2);
    }
    c.globalAlpha = 1;
    c.strokeStyle = themeColor("muted");
    c.setLineDash([4, 3]);
    c.font = "12px system-ui, sans-serif";
    means.forEach((mean, side) => {
      const [x, y] = this.place(mean, mean);
      for (const sigma of [1, 2]) {
        c.beginPath();
        if (width > 1) c.arc(x, y, sigma * scales[side] * unit, 0, 2 * Math.PI);
        else { c.moveTo(x - sigma * scales[side] * unit, y - 12); c.lineTo(x - sigma * scales[side] * unit, y + 12); c.moveTo(x + sigma * scales[side] * unit, y - 12); c.lineTo(x + sigma * scales[side] * unit, y + 12); }
        c.stroke();
      }
    });
    c.setLineDash([]);
    means.forEach((mean, side) => {
      const [x, y] = this.place(mean, mean);
      c.textAlign = "center";
      c.lineWidth = 4;
      c.strokeStyle = themeColor("ground");
      c.strokeText(this.words[side], x, y + 4);
      c.lineWidth = 1;
      c.fillStyle = themeColor("text");
      c.fillText(this.words[side], x, y + 4);
    });
    const [x, y] = this.place(this.at[0], this.at[1]);
    c.beginPath();
    c.arc(x, y, 6, 0, 2 * Math.PI);
    c.fillStyle = themeColor("accent");
    c.fill();
    c.lineWidth = 2;
    c.strokeStyle = themeColor("ground");
    c.stroke();
    c.lineWidth = 1;
  }

  listen() {
    const to = (/** @type {PointerEvent} */ event) => {
      const box = this.canvas.getBoundingClientRect(), unit = (this.high - this.low) / this.side;
      this.go(this.low + (event.clientX - box.left) * unit, this.high - (event.clientY - box.top) * unit);
    };
    this.canvas.addEventListener("pointerdown", (event) => { this.canvas.setPointerCapture(event.pointerId); to(event); });
    this.canvas.addEventListener("pointermove", (event) => { if (event.buttons) to(event); });
    this.canvas.addEventListener("keydown", (event) => {
      const step = ({ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]})[event.key];
      if (!step) return;
      event.preventDefault();
      this.go(this.at[0] + 0.1 * step[0], this.at[1] + 0.1 * step[1]);
    });
  }
}
