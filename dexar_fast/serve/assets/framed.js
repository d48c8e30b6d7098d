
/* ---- in a frame: an answer that grows, and a height to tell. Each message holds a state: see serve/work/growing.py */

for (const notes of document.querySelectorAll("article > .notes")) {
  const fold = Object.assign(document.createElement("details"), { className: "folded" });
  fold.append(Object.assign(document.createElement("summary"), { textContent: "What the numbers are, and what made them" }));
  notes.replaceWith(fold);
  fold.append(notes);
}
const unpackedBlocks = [];
let newest = null, busy = false;

/* One after another; of several that wait the newest counts. */
async function follow(state) {
  newest = state;
  if (busy) return;
  busy = true;
  try {
    while (newest) {
      const next = newest;
      newest = null;
      await (next.final ? finish(next.final) : grow(next));
    }
  } finally {
    busy = false;
  }
}

/* Takes the chips so far and the numbers of each block; the last row of a block is of itself as a whole, and left out. */
async function grow({ chips, blocks, whole, heaviest }) {
  document.body.classList.add("growing");
  while (unpackedBlocks.length < blocks.length) {
    unpackedBlocks.push(await unpacked(blocks[unpackedBlocks.length]));
  }
  const parts = [...unpackedBlocks.map((part, n) => part.map((rows) => withoutLast(rows, blocks[n]))), await unpacked(whole)];
  const [maps, heads, layers] = [0, 1, 2].map((at) => joined(parts.map((part) => part[at])));
  const all = [...blocks, whole];
  const pieces = [...blocks.flatMap((block) => block.pieces.slice(0, -1)), ...whole.pieces];
  const kept = [...blocks.flatMap((block) => block.kept.slice(0, -1)), ...whole.kept];
  const viewer = shared.viewers[0];
  rewrite(viewer, (answer) => (answer.innerHTML = chips.join("")));
  const legend = viewer.root.querySelector(".legend");
  if (legend) legend.lastChild.textContent = ` ${heaviest}`;
  update(viewer, { ...viewer.report, ...all.at(-1), pictures: viewer.report.pictures, pieces, kept }, maps, heads, layers);
}

/* Takes what the report of the finished answer says otherwise. */
async function finish(html) {
  const made = new DOMParser().parseFromString(html, "text/html");
  const { reports } = JSON.parse(made.getElementById("data").textContent);
  const viewer = shared.viewers[0];
  document.body.classList.remove("growing");
  document.querySelector(".folded > .notes").replaceChildren(...made.querySelector("article > .notes").childNodes);
  for (const part of [".sizes", ".hint", ".whole", ".rests"]) swap(document, made, part);
  rewrite(viewer, (answer) => {
    const written = made.querySelector(".answer");
    answer.dir = written.dir;
    answer.replaceChildren(...written.childNodes);
  });
  update(viewer, reports[0], ...(await unpacked(reports[0])));
  parent.postMessage({ drawn: true }, "*");
}

function swap(root, made, selector) {
  const [old, other] = [root.querySelector(selector), made.querySelector(selector)];
  if (!old && other) root.querySelector(".facts dl").after(other);
  if (!old || !other) return;
  old.replaceChildren(...other.childNodes);
  if (other.ariaLabel) old.ariaLabel = other.ariaLabel;
}

/* What has the focus in the answer keeps it. */
function rewrite(viewer, write) {
  const answer = viewer.root.querySelector(".answer");
  const focused = options(answer).indexOf(document.activeElement);
  const atEnd = answer.scrollHeight - answer.scrollTop - answer.clientHeight < 4;
  write(answer);
  options(answer)[focused]?.focus();
  if (atEnd) answer.scrollTop = answer.scrollHeight;
}

function update(viewer, report, ...numbers) {
  viewer.show(report, ...numbers);
  mark(viewer.chips, viewer.pinned === viewer.whole ? -1 : viewer.pinned);
  viewer.draw();
}

function withoutLast(rows, block) {
  return rows.subarray(0, rows.length - rows.length / block.pieces.length);
}

function joined(arrays) {
  const all = new Uint8Array(arrays.reduce((sum, array) => sum + array.length, 0));
  arrays.reduce((at, array) => (all.set(array, at), at + array.length), 0);
  return all;
}

/* The page around may be dark where the system is not. */
const ofDark = [...document.styleSheets[0].cssRules].filter((rule) => rule.media?.mediaText.includes("prefers-color-scheme"));
function darken(dark) {
  for (const rule of ofDark) rule.media.mediaText = dark ? "all" : "not all";
  document.documentElement.style.colorScheme = dark ? "dark" : "light";
}

addEventListener("message", ({ source, data }) => {
  if (source !== parent) return;
  if ("dark" in data) darken(data.dark);
  if (data.state) follow(data.state);
});
new ResizeObserver(() => {
  parent.postMessage({ height: Math.ceil(document.body.getBoundingClientRect().height) }, "*");
}).observe(document.body);
started.then(() => parent.postMessage({ ready: true }, "*"));
