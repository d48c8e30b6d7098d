"use strict";

const page = JSON.parse(document.getElementById("data").textContent);
const shared = { view: "overlay", scale: "weight", opacity: 0, viewers: [] };
const NEARLY = 0.75, SPOT_EDGE = 96; // a spot is looked for in a smaller map
let palette;

async function inflate(text) {
  const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function short(number) {
  return String(Number(number.toPrecision(3)));
}

function percent(share) {
  return `${Math.round(100 * share)} %`;
}

/* ---- maps: the same numbers as dexar_fast.vision.maps.paint */

/* For each pixel the cell before it, how far it lies towards the next one, and the share of it within [low, high]. */
function axis(pixels, cells, low, high) {
  const cell = new Int32Array(pixels), part = new Float32Array(pixels), share = new Float32Array(pixels);
  for (let p = 0; p < pixels; p++) {
    const covered = Math.min(p + 1, high) - Math.max(p, low);
    const at = Math.min(Math.max(((p + 0.5 - low) / (high - low)) * cells - 0.5, 0), cells - 1);
    cell[p] = Math.floor(at);
    part[p] = at - cell[p];
    share[p] = Math.max(0, Math.round(covered * 1e6) / 1e6);
  }
  return { cell, part, share, last: cells - 1 };
}

/* Bilinear inside each grid's box, the mean weighted by how much of a pixel each grid covers: heat in [0, 1]; and by
   how much all of them cover it. */
function paint(grids, values, width, height) {
  const heat = new Float32Array(width * height), cover = new Float32Array(width * height);
  for (const { rows, columns, offset, box } of grids) {
    const across = axis(width, columns, box[0] * width, box[2] * width);
    const down = axis(height, rows, box[1] * height, box[3] * height);
    const line = new Float32Array(columns);
    for (let y = 0; y < height; y++) {
      if (!down.share[y]) continue;
      const upper = offset + down.cell[y] * columns;
      const lower = offset + Math.min(down.cell[y] + 1, down.last) * columns;
      for (let c = 0; c < columns; c++) {
        line[c] = (values[upper + c] + (values[lower + c] - values[upper + c]) * down.part[y]) / 255;
      }
      for (let x = 0, i = y * width; x < width; x++, i++) {
        const share = down.share[y] * across.share[x];
        if (!share) continue;
        const c = across.cell[x];
        heat[i] += share * (line[c] + (line[Math.min(c + 1, across.last)] - line[c]) * across.part[x]);
        cover[i] += share;
      }
    }
  }
  for (let i = 0; i < heat.length; i++) if (cover[i]) heat[i] /= cover[i];
  return { heat, cover };
}

/* Colour and opacity of each of 256 steps of heat, as one number a pixel; opacity 1 throughout for the map alone. */
function inks(opacity, solid) {
  const bytes = new Uint8ClampedArray(256 * 4);
  for (let step = 0; step < 256; step++) {
    bytes.set(palette.subarray(3 * step, 3 * step + 3), 4 * step);
    bytes[4 * step + 3] = solid ? 255 : 255 * opacity * (step / 255) ** page.power;
  }
  return new Uint32Array(bytes.buffer);
}

function tint({ heat, cover }, width, height, ink) {
  const pixels = new ImageData(width, height);
  const out = new Uint32Array(pixels.data.buffer);
  for (let i = 0; i < heat.length; i++) {
    if (cover[i]) out[i] = ink[Math.min(255, Math.floor(heat[i] * 256))];
  }
  return pixels;
}

/* Draws the lines of dexar_fast.report.overlay.lines into tinted pixels. */
function outline(pixels, heat, ink) {
  const { width, height } = pixels;
  const out = new Uint32Array(pixels.data.buffer);
  const thick = Math.max(1, Math.round(Math.max(width, height) / page.lines.across));
  const level = Uint8Array.from(heat, (value) => Math.min(value * page.lines.levels, page.lines.levels - 1));
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const on =
        (x >= thick && level[i] > level[i - thick]) || (x + thick < width && level[i] > level[i + thick]) ||
        (y >= thick && level[i] > level[i - thick * width]) ||
        (y + thick < height && level[i] > level[i + thick * width]);
      if (on) out[i] = ink[Math.min(255, Math.floor(heat[i] * 256))];
    }
  }
}

/* The map as pixels: alone, or as a veil of the chosen opacity with lines that stand out from it. */
function drawn(painted, width, height, alone) {
  const pixels = tint(painted, width, height, inks(shared.opacity, alone));
  if (!alone) outline(pixels, painted.heat, inks(Math.min(1, shared.opacity * page.lines.opaque), false));
  return pixels;
}

/* Where the brightest spot lies, in words: the middle of what hangs together around the hottest pixel and is nearly as
   hot. Nothing where all are alike. */
function brightest({ heat }, width, height) {
  let hottest = 0;
  for (let i = 1; i < heat.length; i++) if (heat[i] > heat[hottest]) hottest = i;
  if (!heat.length || heat[hottest] === 0) return null;
  const spot = spread(heat, width, hottest, NEARLY * heat[hottest]);
  if (spot.length > heat.length / 2) return "most of it";
  const middle = (of) => spot.reduce((sum, i) => sum + of(i) + 0.5, 0) / spot.length;
  const row = ["upper", "middle", "lower"][Math.floor((3 * middle((i) => Math.floor(i / width))) / height)];
  const column = ["left", "centre", "right"][Math.floor((3 * middle((i) => i % width)) / width)];
  return row === "middle" && column === "centre" ? "centre" : `${row} ${column}`;
}

/* The pixels of at least this heat that are joined to the first one by such pixels. */
function spread(heat, width, first, least) {
  const seen = new Uint8Array(heat.length), found = [first];
  seen[first] = 1;
  for (let n = 0; n < found.length; n++) {
    const i = found[n], x = i % width;
    for (const next of [x ? i - 1 : -1, x + 1 < width ? i + 1 : -1, i - width, i + width]) {
      if (next < 0 || next >= heat.length || seen[next] || heat[next] < least) continue;
      seen[next] = 1;
      found.push(next);
    }
  }
  return found;
}

/* ---- lists that the arrow keys walk through */

function options(list) {
  return [...list.querySelectorAll("[role=option]")];
}

/* One element of the list can be reached with Tab; arrows, Home and End go on from there. */
function walk(list, choose, leave) {
  let going = false;
  list.addEventListener("keydown", (event) => {
    const items = options(list);
    const go = (index) => {
      going = true;
      items[index].focus();
      going = false;
      choose(index, event.shiftKey);
    };
    const now = items.indexOf(event.target.closest("[role=option]"));
    if (now < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
    const ahead = getComputedStyle(list).direction === "rtl" ? -1 : 1;
    const steps = { ArrowRight: now + ahead, ArrowLeft: now - ahead, Home: 0, End: items.length - 1 };
    if (event.key in steps) go(Math.min(Math.max(steps[event.key], 0), items.length - 1));
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") go(nextLine(items, now, event.key === "ArrowDown"));
    else if (event.key === "Enter" || event.key === " ") choose(now, event.shiftKey);
    else if (event.key === "Escape" && leave) leave();
    else return;
    event.preventDefault();
  });
  if (leave) {
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.defaultPrevented) leave();
    });
  }
  list.addEventListener("focusin", (event) => {
    const index = options(list).indexOf(event.target);
    if (index >= 0 && !going && event.target.matches(":focus-visible")) choose(index);
  });
}

/* The item of the line below or above that lies closest; the same where there is none. */
function nextLine(items, now, below) {
  const here = items[now].getBoundingClientRect();
  let best = now, distance = Infinity;
  items.forEach((item, index) => {
    const there = item.getBoundingClientRect();
    const down = (there.top - here.top) * (below ? 1 : -1);
    const apart = down * 1000 + Math.abs(there.left + there.right - here.left - here.right);
    if (down > here.height / 2 && apart < distance) [best, distance] = [index, apart];
  });
  return best;
}

function mark(items, index, last = index) {
  items.forEach((item, i) => {
    item.setAttribute("aria-selected", String(index <= i && i <= last));
    if (index >= 0) item.tabIndex = i === index ? 0 : -1;
  });
}

/* Several pieces as one, as dexar_fast.report.words merges tokens: the sum of their maps by weight, the highest weight
   of each head. The map of a piece of several tokens is such a sum already. */
function merged({ report, maps, heads, cells }, first, last) {
  const chosen = report.pieces.slice(first, last + 1), [steps, rows] = [report.steps, report.layers.length];
  const byWeight = chosen.some((piece) => piece.weight);
  const values = new Float64Array(cells), kept = new Float64Array(rows * report.columns), sums = new Float64Array(rows);
  chosen.forEach(({ weight, low, high, peak, tokens }, n) => {
    const at = first + n, summed = weight && tokens[1] - tokens[0] > 1, share = !byWeight || summed ? 1 : weight;
    for (let i = 0; i < cells; i++) values[i] += share * (low + ((high - low) * maps[at * cells + i]) / 255);
    for (let i = 0; i < kept.length; i++) kept[i] = Math.max(kept[i], (peak * heads[at * kept.length + i]) / steps);
  });
  kept.forEach((value, i) => (sums[Math.floor(i / report.columns)] += value));
  const top = (numbers) => numbers.reduce((most, value) => Math.max(most, value), 0);
  const [low, high] = cells ? [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))] : [0, 0];
  const [peak, height, weight] = [top(kept), top(sums), Math.max(...chosen.map((piece) => piece.weight))];
  const scaled = (numbers, least, most, scale) => Uint8Array.from(numbers, (value) => (most > least ? Math.round((scale * (value - least)) / (most - least)) : 0));
  return {
    ...{ first, last, maps: scaled(values, low, high, 255), heads: scaled(kept, 0, peak, steps), layers: scaled(sums, 0, height, 255) },
    piece: { weight, low, high, peak, height, tokens: [chosen[0].tokens[0], chosen.at(-1).tokens[1]] },
    kept: keptOf(report, kept, first, last),
  };
}

/* How many heads a phrase keeps. Coarse steps lose faint ones: it keeps no fewer than any of its pieces. */
function keptOf(report, heads, first, last) {
  const seen = heads.filter((value) => value > 0).length;
  return report.steps === 255 ? `${seen}` : `at least ${Math.max(seen, ...report.kept.slice(first, last + 1))}`;
}

/* ---- one explanation */

class Viewer {
  constructor(root, report, ...numbers) {
    this.root = root;
    this.answer = root.querySelector(".answer");
    this.hovered = null;
    this.anchor = null;
    this.picture = 0;
    this.frames = [...root.querySelectorAll(".frame")];
    this.matrix = root.querySelector(".matrix");
    this.curve = this.matrix && new LayerCurve(root.querySelector(".layers"), report.layers);
    this.cell = null;
    this.inView = new Set();
    this.stale = new Set();
    this.show(report, ...numbers);
    this.listen();
  }

  /* Takes the numbers of the chips that stand in the answer; a piece that is pinned stays so. */
  show(report, maps, heads, layers, rests) {
    const onWhole = this.pinned === this.whole;
    Object.assign(this, { report, maps, heads, layers });
    this.chips = options(this.answer);
    this.whole = report.pieces.length - 1;
    if (onWhole || this.pinned > this.whole) this.pinned = this.whole;
    this.cells = this.maps.length / report.pieces.length;
    this.underlines = report.text && new Underlines(this.root, report.text, rests);
  }

  get shown() {
    return this.hovered ?? this.pinned;
  }

  listen() {
    const { answer } = this;
    walk(answer, (i, extend) => this.choose(i, extend), () => this.pin(this.whole));
    const chipAt = (event) => this.chips.indexOf(event.target.closest(".chip"));
    answer.addEventListener("pointerover", (event) => {
      const index = chipAt(event);
      if (event.pointerType === "mouse") this.hover(index < 0 ? null : index);
    });
    answer.addEventListener("pointerleave", () => this.hover(null));
    answer.addEventListener("click", (event) => {
      const index = chipAt(event);
      if (index >= 0) this.choose(index === this.pinned ? this.whole : index, event.shiftKey);
    });
    onHold(answer, (event) => {
      const index = chipAt(event);
      if (index >= 0) this.choose(index, true);
    });
    answer.addEventListener("scroll", () => this.drawEdges());
    this.root.querySelector(".whole").addEventListener("click", () => this.pin(this.whole));
    const strip = this.root.querySelector(".strip");
    this.thumbs = strip ? options(strip) : [];
    if (strip) walk(strip, (i) => this.turn(i));
    this.thumbs.forEach((thumb, i) => thumb.addEventListener("click", () => this.turn(i)));
    this.watchThumbs();
    if (this.matrix) this.listenToMatrix();
  }

  /* A video may have very many thumbnails: each is painted once it comes into view. */
  watchThumbs() {
    const watcher = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) this.inView[isIntersecting ? "add" : "delete"](target);
      this.drawThumbs();
    });
    this.thumbs.forEach((thumb) => watcher.observe(thumb));
  }

  /* One piece; or the phrase from the last one that was chosen to this one. */
  choose(index, extend) {
    if (!extend || this.anchor === null || index === this.whole || index === this.anchor) {
      this.anchor = index === this.whole ? null : index;
      return this.pin(index);
    }
    const ends = [Math.min(this.anchor, index), Math.max(this.anchor, index)];
    for (const viewer of linked(this)) {
      viewer.phrase = merged(viewer, ...ends);
      Object.assign(viewer, { pinned: viewer.whole + 1, hovered: null });
      mark(viewer.chips, ...ends);
      viewer.draw();
    }
    this.root.querySelector(".facts [role=status]").textContent = this.textOf(this.pinned);
  }

  /* Of what is shown: a piece, the whole answer, or the phrase behind it. */
  get piece() {
    return this.shown > this.whole ? this.phrase.piece : this.report.pieces[this.shown];
  }

  row(name, width) {
    return this.shown > this.whole ? this.phrase[name] : this[name].subarray(this.shown * width, (this.shown + 1) * width);
  }

  textOf(shown) {
    const { first, last } = shown > this.whole ? this.phrase : { first: shown, last: shown };
    const parts = this.chips.slice(first, last + 1).map((chip) => (chip.matches(".space-before") ? " " : "") + chip.textContent);
    return parts.join("").trim();
  }

  pin(index) {
    for (const viewer of linked(this)) {
      viewer.pinned = index === this.whole ? viewer.whole : index;
      viewer.hovered = null;
      mark(viewer.chips, index === this.whole ? -1 : index);
      viewer.draw();
    }
    const pressed = this.chips[index] ?? this.root.querySelector(".whole");
    this.root.querySelector(".facts [role=status]").textContent = pressed.getAttribute("aria-label");
  }

  hover(index) {
    for (const viewer of linked(this)) {
      viewer.hovered = index;
      viewer.draw();
    }
  }

  turn(index) {
    this.picture = index;
    this.frames.forEach((frame, i) => (frame.hidden = i !== index));
    mark(this.thumbs, index);
    this.draw();
  }

  draw() {
    this.waiting ||= requestAnimationFrame(() => {
      this.waiting = 0;
      this.stale = new Set(this.thumbs);
      this.drawMap();
      this.drawThumbs();
      this.drawFacts();
      this.drawEdges();
      this.underlines?.show(this.shown);
      if (!this.matrix) return;
      this.drawMatrix();
      this.drawCurve();
    });
  }

  /* The steps of the map that is shown, those of all images. */
  get values() {
    return this.row("maps", this.cells);
  }

  /* What the heat is multiplied by: by weight, that of the token in parts of the largest. */
  get share() {
    if (this.shown === this.whole || shared.scale === "own") return 1;
    const { weight } = this.piece;
    return weight && weight / this.heaviest;
  }

  /* The largest weight: of all answers that stand side by side, where their weights compare. */
  get heaviest() {
    return page.top ?? Math.max(0, ...this.report.pieces.map((piece) => piece.weight));
  }

  paint(picture, width, height) {
    const grids = this.report.grids.filter((grid) => grid.first <= picture && picture < grid.stop);
    const painted = paint(grids, this.values, width, height);
    const { share } = this;
    if (share !== 1) painted.heat.forEach((heat, i) => (painted.heat[i] = heat * share));
    return painted;
  }

  /* Why the picture carries no heat; empty where it may. A map that varies at all has a hottest cell. */
  get complaint() {
    if (!this.report.grids.length) return "";
    if (!this.report.pictures[this.picture].mapped) return "None of the visual tokens belongs to this image";
    const varies = this.values.some((step) => step > 0);
    if (varies) return this.share ? "" : "Weight 0: nothing shown. “Own scale” shows its map";
    if (this.piece.high !== 0) return "Even map: every patch counts alike";
    if (!this.matrix) return "Blank map: 0 everywhere";
    return this.shown === this.whole
      ? "Blank map: every token has weight 0"
      : "Blank map: no head found more in the image than in the text";
  }

  drawMap() {
    this.root.dataset.view = shared.view;
    const frame = this.frames[this.picture];
    if (!frame) return;
    const canvas = frame.querySelector(".heat");
    const { width, height } = canvas;
    const painted = this.paint(this.picture, width, height);
    const alone = shared.view === "map" || frame.classList.contains("bare");
    canvas.getContext("2d").putImageData(drawn(painted, width, height, alone), 0, 0);
    const small = Math.min(1, SPOT_EDGE / Math.max(width, height));
    const [across, down] = [width, height].map((edge) => Math.max(1, Math.round(edge * small)));
    this.place = brightest(this.paint(this.picture, across, down), across, down);
    canvas.setAttribute("aria-label", `Map: ${this.place ? `brightest ${this.place}` : "blank"}`);
    const { low, high } = this.piece;
    const badge = frame.querySelector(".badge");
    badge.textContent = this.complaint;
    badge.hidden = !badge.textContent;
    if (this.report.grids.length) this.drawScale("map", low, high, this.unit);
  }

  get unit() {
    if (this.share === 1) return "map value";
    return this.share ? `map value, dimmed to its weight: ${percent(this.share)} of top` : "map value, not drawn: its weight is 0";
  }

  drawThumbs() {
    this.thumbs.forEach((thumb, i) => {
      if (this.inView.has(thumb) && this.stale.delete(thumb)) this.drawThumb(thumb.firstElementChild, i);
    });
  }

  drawThumb(canvas, i) {
    const context = canvas.getContext("2d");
    const ratio = Number(canvas.style.getPropertyValue("--ratio"));
    const tallest = 2 * Math.min(canvas.clientHeight, canvas.clientWidth / ratio);
    const [width, height] = [tallest * ratio, tallest].map((edge) => Math.max(1, Math.round(edge)));
    Object.assign(canvas, { width, height });
    const image = this.frames[i].querySelector("img");
    if (image && shared.view !== "map") context.drawImage(image, 0, 0, width, height);
    if (shared.view === "image" && image) return;
    const layer = new OffscreenCanvas(width, height);
    const alone = shared.view === "map" || !image;
    layer.getContext("2d").putImageData(drawn(this.paint(i, width, height), width, height, alone), 0, 0);
    context.drawImage(layer, 0, 0);
  }

  drawScale(name, low, high, unit) {
    const scale = this.root.querySelector(`[data-scale=${name}]`);
    scale.querySelector("[data-low]").textContent = short(low);
    scale.querySelector("[data-high]").textContent = short(high);
    scale.querySelector("[data-unit]").textContent = unit;
  }

  drawFacts() {
    const { report, shown, whole, piece } = this;
    const say = (name, text) => (this.root.querySelector(`[data-value=${name}]`).textContent = text);
    const all = report.pieces.slice(0, -1);
    const share = piece.weight ? ` (${percent(piece.weight / this.heaviest)} of top)` : "";
    const [first, stop] = piece.tokens;
    const span = stop - first > 1 ? ` · tokens ${first + 1}–${stop}` : ` · token ${first + 1}`;
    this.root.querySelector(".chosen").textContent =
      shown === whole ? "Whole answer" : this.textOf(shown) + span;
    this.root.querySelector("[data-name=weight]").textContent = shown === whole ? "With weight" : "Weight";
    const weighty = `${all.filter((one) => one.weight > 0).length} of ${all.length}`;
    say("weight", shown === whole ? weighty : short(piece.weight) + share);
    say("heads", `${shown > whole ? this.phrase.kept : report.kept[shown]} of ${report.layers.length * report.columns}`);
    say("place", this.place ?? "–");
    this.root.querySelector(".whole").setAttribute("aria-pressed", String(this.pinned === whole));
    const [from, to] = shown > whole ? [this.phrase.first, this.phrase.last] : [shown, shown];
    this.chips.forEach((chip, i) => chip.classList.toggle("shown", from <= i && i <= to));
  }

  /* A long answer fades where more of it can be scrolled to: on a phone no scrollbar says so. */
  drawEdges() {
    const { scrollTop, scrollHeight, clientHeight } = this.answer;
    this.answer.classList.toggle("more-above", scrollTop > 1);
    this.answer.classList.toggle("more-below", scrollHeight - clientHeight - scrollTop > 1);
  }

  /* ---- the matrix of heads */

  listenToMatrix() {
    const { matrix, report } = this;
    const rows = report.layers.length;
    const clamp = (value, stop) => Math.min(Math.max(value, 0), stop - 1);
    const choose = (row, column) => {
      this.cell = row === null ? null : [clamp(row, rows), clamp(column, report.columns)];
      this.drawMatrix();
      this.curve.point(this.cell && this.cell[0]);
    };
    matrix.addEventListener("pointermove", (event) => {
      const { left, top, cell } = this.measure();
      const box = matrix.getBoundingClientRect();
      const row = Math.floor((event.clientY - box.top - top) / cell);
      const column = Math.floor((event.clientX - box.left - left) / cell);
      const inside = row >= 0 && row < rows && column >= 0 && column < report.columns;
      choose(inside ? row : null, column);
    });
    matrix.addEventListener("pointerleave", () => choose(null));
    matrix.addEventListener("blur", () => choose(null));
    matrix.addEventListener("keydown", (event) => {
      const [row, column] = this.cell ?? [0, 0];
      const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
      if (!(event.key in steps)) return;
      const [down, right] = this.cell ? steps[event.key] : [0, 0];
      choose(row + down, column + right);
      event.preventDefault();
    });
    new ResizeObserver(() => this.drawMatrix()).observe(matrix);
  }

  measure() {
    const zoom = this.matrix.clientWidth / Number(this.matrix.dataset.width);
    const { cell, left, top } = this.matrix.dataset;
    return { cell: cell * zoom, left: left * zoom, top: top * zoom };
  }

  drawMatrix() {
    const { matrix, report } = this;
    const { cell, left, top } = this.measure();
    const rows = report.layers.length, columns = report.columns, dots = window.devicePixelRatio || 1;
    const weights = this.row("heads", rows * columns);
    const { peak } = this.piece;
    matrix.width = Math.round(matrix.clientWidth * dots);
    matrix.height = Math.round(matrix.clientHeight * dots);
    const context = matrix.getContext("2d");
    context.scale(dots, dots);
    const gap = cell > 9 ? 1 : 0;
    for (let i = 0; i < weights.length; i++) {
      const step = 3 * Math.round((255 * weights[i]) / report.steps);
      context.fillStyle = `rgb(${palette.subarray(step, step + 3).join()})`;
      const [row, column] = [Math.floor(i / columns), i % columns];
      context.fillRect(left + column * cell, top + row * cell, cell - gap, cell - gap);
    }
    this.label(context, cell, left, top, rows, columns);
    const readout = this.root.querySelector(".cell");
    readout.textContent = "Point at a cell";
    if (this.cell) {
      const [row, column] = this.cell;
      context.strokeStyle = "#fff";
      context.lineWidth = 1.5;
      context.strokeRect(left + column * cell, top + row * cell, cell - gap, cell - gap);
      const weight = (weights[row * columns + column] / report.steps) * peak;
      readout.textContent = `Layer ${report.layers[row]}, head ${column}: ${short(Number(weight.toPrecision(2)))}`;
    }
    this.drawScale("heads", 0, peak, "head weight");
  }

  drawCurve() {
    this.curve.show(this.row("layers", this.report.layers.length), this.piece.height);
  }

  label(context, cell, left, top, rows, columns) {
    context.fillStyle = "#a29cb0";
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.textAlign = "right";
    const each = (cells, room) => Math.max(1, Math.ceil(room / cell), Math.ceil(cells / 16));
    for (let row = 0; row < rows; row += each(rows, 14)) {
      context.fillText(this.report.layers[row], left - 6, top + (row + 0.5) * cell);
    }
    context.textAlign = "center";
    for (let column = 0; column < columns; column += each(columns, 22)) {
      context.fillText(column, left + (column + 0.5) * cell, top + rows * cell + 9);
    }
    context.fillText("head", left + (columns * cell) / 2, top + rows * cell + 24);
    context.rotate(-Math.PI / 2);
    context.fillText("layer", -top - (rows * cell) / 2, 8);
  }
}

/* ---- all of them */

function linked(viewer) {
  return document.getElementById("linked")?.checked ? shared.viewers : [viewer];
}

function sameAnswers(viewers) {
  const texts = viewers.map((viewer) => viewer.chips.map((chip) => chip.textContent).join("\n"));
  return texts.every((text) => text === texts[0]);
}

function listenToControls() {
  const slider = document.getElementById("opacity");
  const redraw = () => shared.viewers.forEach((viewer) => viewer.draw());
  const alone = !document.querySelector(".frame img");
  document.querySelectorAll("[name=view]").forEach((radio) => {
    radio.disabled = alone && radio.value !== "map";
    radio.checked = radio.value === (alone ? "map" : "overlay");
    radio.addEventListener("change", () => {
      shared.view = radio.value;
      if (slider) slider.disabled = shared.view !== "overlay";
      redraw();
    });
  });
  if (alone) shared.view = "map";
  document.querySelectorAll("[name=scale]").forEach((radio) => {
    radio.checked = radio.value === shared.scale;
    radio.addEventListener("change", () => {
      shared.scale = radio.value;
      redraw();
    });
  });
  if (!slider) return;
  slider.disabled = alone;
  const read = () => {
    shared.opacity = slider.value / 100;
    slider.nextElementSibling.textContent = `${slider.value} %`;
    redraw();
  };
  slider.addEventListener("input", read);
  read();
}

/* The bytes of a report, in the order that Viewer takes them. */
function unpacked({ maps, heads, curves, text }) {
  return Promise.all([maps, heads, curves, ...(text ? [text.rests] : [])].map(inflate));
}

async function start() {
  palette = await inflate(page.palette);
  for (const root of document.querySelectorAll(".viewer")) {
    const report = page.reports[root.dataset.report];
    shared.viewers.push(new Viewer(root, report, ...(await unpacked(report))));
  }
  const link = document.querySelector(".linked");
  if (link) {
    link.hidden = !sameAnswers(shared.viewers);
    link.parentElement.hidden = link.hidden && !document.querySelector(".controls");
    if (link.hidden) document.getElementById("linked").checked = false;
  }
  listenToControls();
  await Promise.allSettled([...document.images].map((image) => image.decode()));
  shared.viewers.forEach((viewer) => viewer.draw());
  addEventListener("resize", () => shared.viewers.forEach((viewer) => viewer.draw()));
  document.documentElement.dataset.ready = "true";
}

const started = start();
