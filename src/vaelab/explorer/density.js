// Densities over the map, and lines that hold a share of their mass.
"use strict";

/** @typedef {{size: number, left: number, bottom: number, cell: number, values: Float64Array}} Grid */
/** @typedef {{x: number, y: number, half: number}} View centre and half of the side, in units of the map */

const GRID_SIZE = 96;
const MASSES = [1 - Math.exp(-0.5), 1 - Math.exp(-2)]; // of a 2-D normal within 1σ and 2σ

/**
 * The density of normals of equal weight, on a square grid.
 * @param {[number, number][]} places @param {(i: number) => [number, number]} deviations @param {View} view
 * @returns {Grid}
 */
function densityOf(places, deviations, view) {
  const reach = 1.25 * view.half, cell = (2 * reach) / GRID_SIZE;
  const grid = {size: GRID_SIZE, left: view.x - reach, bottom: view.y - reach, cell, values: new Float64Array(GRID_SIZE ** 2)};
  places.forEach(([x, y], i) => {
    const [sx, sy] = deviations(i).map((s) => Math.max(s, 0.04 * view.half));
    const columns = profile(x - grid.left, sx, cell), rows = profile(y - grid.bottom, sy, cell);
    rows.weights.forEach((v, r) => columns.weights.forEach((u, c) => {
      grid.values[(rows.first + r) * GRID_SIZE + columns.first + c] += u * v;
    }));
  });
  return grid;
}

/** A normal at the centres of the cells that it reaches. @param {number} at @param {number} sigma @param {number} cell */
function profile(at, sigma, cell) {
  const first = clamp(Math.floor((at - 3 * sigma) / cell), 0, GRID_SIZE), last = clamp(Math.ceil((at + 3 * sigma) / cell), 0, GRID_SIZE);
  const weights = Array.from({length: last - first}, (_, i) => Math.exp(-0.5 * (((first + i + 0.5) * cell - at) / sigma) ** 2) / sigma);
  return {first, weights};
}

/** The height above which a share of the mass lies. @param {Grid} grid @param {number} share */
function levelOf(grid, share) {
  const sorted = Array.from(grid.values).sort((a, b) => b - a), total = sorted.reduce((a, b) => a + b, 0);
  let sum = 0;
  return sorted.find((value) => (sum += value) >= share * total) || 0;
}

/** Points where a grid crosses a level, as closed areas and lines (marching squares). @param {Grid} grid @param {number} level */
function contour(grid, level) {
  const path = new Path2D(), {size, values, cell} = grid;
  /** @param {number} c @param {number} r */
  const at = (c, r) => values[r * size + c];
  /** @param {number} c @param {number} r */
  const place = (c, r) => [grid.left + (c + 0.5) * cell, grid.bottom + (r + 0.5) * cell];
  for (let r = 0; r + 1 < size; r++) {
    for (let c = 0; c + 1 < size; c++) {
      const corners = [[c, r], [c + 1, r], [c + 1, r + 1], [c, r + 1]];
      /** @type {number[][]} */
      const crossings = [];
      for (let k = 0; k < 4; k++) {
        const [a, b] = [corners[k], corners[(k + 1) % 4]], [u, v] = [at(a[0], a[1]), at(b[0], b[1])];
        if (u > level === v > level) continue;
        const share = (level - u) / (v - u), [p, q] = [place(a[0], a[1]), place(b[0], b[1])];
        crossings.push([p[0] + share * (q[0] - p[0]), p[1] + share * (q[1] - p[1])]);
      }
      for (let k = 0; k + 1 < crossings.length; k += 2) {
        path.moveTo(crossings[k][0], crossings[k][1]);
        path.lineTo(crossings[k + 1][0], crossings[k + 1][1]);
      }
    }
  }
  return path;
}
