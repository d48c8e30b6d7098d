"use strict";

/* The weight of each layer as a curve, in an SVG whose letters keep their size at any width. */

const CURVE = { left: 46, right: 10, above: 10, below: 34 }; // pixels around it, for its labels
const LEAST_APART = 22; // pixels between two labels

class LayerCurve {
  constructor(root, names) {
    Object.assign(this, { root, names, weights: new Uint8Array(names.length), peak: 0, pointed: null });
    this.svg = root.querySelector("svg");
    this.svg.addEventListener("pointermove", (event) => {
      const x = event.clientX - this.svg.getBoundingClientRect().left;
      this.point(Math.min(names.length - 1, Math.max(0, Math.round((x - CURVE.left) / this.step))));
    });
    this.svg.addEventListener("pointerleave", () => this.point(null));
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  /* Takes the weights of the layers in steps of 255 from 0 to their peak. */
  show(weights, peak) {
    Object.assign(this, { weights, peak });
    this.draw();
  }

  /* Reads off one layer, or the highest. */
  point(layer) {
    this.pointed = layer;
    this.draw();
  }

  get width() {
    return this.svg.clientWidth - CURVE.left - CURVE.right;
  }

  get height() {
    return this.svg.clientHeight - CURVE.above - CURVE.below;
  }

  /* From layer to layer; a single one stands at the left. */
  get step() {
    return this.width / Math.max(1, this.names.length - 1);
  }

  x(layer) {
    return CURVE.left + layer * this.step;
  }

  y(layer) {
    return CURVE.above + this.height * (1 - this.weights[layer] / 255);
  }

  draw() {
    const layers = [...this.names.keys()];
    const points = layers.map((layer) => `${this.x(layer)},${this.y(layer)}`).join(" ");
    const dots = layers.map((layer) => svg("circle", { cx: this.x(layer), cy: this.y(layer), r: this.radius(layer) }));
    this.svg.replaceChildren(...this.axes(), svg("polyline", { points }), ...dots);
    this.svg.setAttribute("aria-label", `Weight by layer: ${this.said(null)}`);
    this.root.querySelector(".layer").textContent = this.said(this.pointed);
  }

  radius(layer) {
    return layer === this.pointed ? 5 : Math.max(0, Math.min(2.5, this.step / 4)); // a page without width has no steps
  }

  axes() {
    const [bottom, right] = [CURVE.above + this.height, CURVE.left + this.width];
    const every = Math.ceil(LEAST_APART / this.step);
    const named = [...this.names.keys()].filter((layer) => layer % every === 0);
    const levels = (this.peak ? [0, 1] : [0]).map((part) => [part * this.peak, bottom - part * this.height]);
    return [
      ...levels.map(([, y]) => svg("line", { x1: CURVE.left, x2: right, y1: y, y2: y })),
      ...levels.map(([weight, y]) => letters(short(weight), CURVE.left - 6, y, "end")),
      ...named.map((layer) => letters(this.names[layer], this.x(layer), bottom + 12, "middle")),
      letters("layer", CURVE.left + this.width / 2, bottom + 27, "middle"),
      letters("weight", 8, CURVE.above + this.height / 2, "middle", -90),
    ];
  }

  said(layer) {
    const weight = (at) => short(Number(((this.peak * this.weights[at]) / 255).toPrecision(2)));
    if (layer !== null) return `Layer ${this.names[layer]}: ${weight(layer)}`;
    if (!this.peak) return "No layer has weight";
    return `Highest: layer ${this.names[this.weights.indexOf(255)]}, ${short(this.peak)}`;
  }
}

function svg(name, attributes) {
  const element = document.createElementNS(document.querySelector("svg").namespaceURI, name);
  Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
  return element;
}

function letters(text, x, y, anchor, turn = 0) {
  const element = svg("text", { x, y, "text-anchor": anchor, transform: `rotate(${turn} ${x} ${y})` });
  element.textContent = text;
  return element;
}
