// Writes animated GIF files: https://www.w3.org/Graphics/GIF/spec-gif89a.txt
"use strict";

const GIF_COLORS = 256;

/** Grey levels, or 6 × 7 × 6 levels of red, green and blue. @param {boolean} grey */
function gifPalette(grey) {
  const colors = [];
  for (let i = 0; i < GIF_COLORS; i++) {
    const k = Math.min(i, 251);
    colors.push(grey ? [i, i, i] : [Math.floor(k / 42) * 51, Math.round((Math.floor(k / 6) % 7) * 42.5), (k % 6) * 51]);
  }
  return colors;
}

/** @param {Uint8ClampedArray} rgba @param {number} i @param {number} dither between −½ and ½ */
function gifColor(rgba, i, dither) {
  const level = (/** @type {number} */ value, /** @type {number} */ steps) => clamp(Math.round((value / 255) * steps + dither), 0, steps);
  return level(rgba[i], 5) * 42 + level(rgba[i + 1], 6) * 6 + level(rgba[i + 2], 5);
}

/**
 * An animation that repeats for ever.
 * @param {Uint8ClampedArray[]} frames RGBA @param {number} width @param {number} height
 * @param {boolean} grey @param {number} delay in hundredths of a second
 */
function gif(frames, width, height, grey, delay) {
  /** @type {number[]} */
  const out = [];
  const word = (/** @type {number} */ n) => out.push(n & 255, n >> 8);
  const text = (/** @type {string} */ s) => out.push(...Array.from(s, (c) => c.charCodeAt(0)));
  text("GIF89a");
  word(width); word(height);
  out.push(0xf7, 0, 0, ...gifPalette(grey).flat());
  out.push(0x21, 0xff, 11); text("NETSCAPE2.0"); out.push(3, 1, 0, 0, 0);
  for (const frame of frames) {
    out.push(0x21, 0xf9, 4, 0); word(delay); out.push(0, 0);
    out.push(0x2c); word(0); word(0); word(width); word(height); out.push(0);
    const pixels = new Uint8Array(width * height);
    for (let p = 0; p < pixels.length; p++) {
      const dither = (((p % width) + 2 * Math.floor(p / width)) % 4) / 4 - 0.375;
      pixels[p] = grey ? frame[4 * p] : gifColor(frame, 4 * p, dither);
    }
    out.push(8);
    const data = lzw(pixels);
    for (let i = 0; i < data.length; i += 255) {
      const block = data.subarray(i, i + 255);
      out.push(block.length, ...block);
    }
    out.push(0);
  }
  out.push(0x3b);
  return Uint8Array.from(out);
}

/** Codes of growing width for strings seen before (Welch, 1984). @param {Uint8Array} pixels */
function lzw(pixels) {
  const clear = 256, end = 257, most = 4096;
  /** @type {number[]} */
  const bytes = [];
  let buffer = 0, held = 0, width = 9, next = end + 1;
  /** @type {Map<number, number>} */
  let table = new Map();
  const emit = (/** @type {number} */ code) => {
    buffer |= code << held;
    held += width;
    for (; held >= 8; held -= 8, buffer >>= 8) bytes.push(buffer & 255);
  };
  emit(clear);
  let prefix = pixels[0];
  for (let i = 1; i < pixels.length; i++) {
    const key = (prefix << 8) | pixels[i], known = table.get(key);
    if (known !== undefined) { prefix = known; continue; }
    emit(prefix);
    if (next < most) {
      if (next === 1 << width) width++;
      table.set(key, next++);
    } else {
      emit(clear);
      table = new Map();
      width = 9;
      next = end + 1;
    }
    prefix = pixels[i];
  }
  emit(prefix);
  if (next === 1 << width && width < 12) width++;
  emit(end);
  if (held) bytes.push(buffer & 255);
  return Uint8Array.from(bytes);
}
