/* Paints what to hide over the picture of the last question: a mask for each picture, as a small PNG. The server sends
   the pictures, and with masks of its own what it has hidden; the latter it may send again when nothing is new. */
const EDGE = 256, STEP = 8, BACK = 20; // pixels: of a mask's longer edge, of a press of an arrow key; strokes to take back
const board = element.querySelector(".board"), canvas = element.querySelector("canvas"), image = element.querySelector("img");
const [select, size] = [element.querySelector("select"), element.querySelector("input")];
let given = [], masks = [], past = [], told = "", at = 0, cursor = null, last = null;

async function show() {
  const { pictures, masks: hidden, own } = props.value ?? {};
  if (!pictures || own) return;
  const sent = hidden?.join() ?? "", known = pictures.join() === given.join();
  const keeps = known && (!sent || sent === told);
  told = sent;
  if (keeps) return;
  past = known ? remembered() : [];
  given = pictures;
  const news = (masks = hidden ?? given.map(() => null));
  element.querySelector(".nothing-yet").hidden = given.length > 0;
  board.hidden = element.querySelector(".canvas-row").hidden = !given.length;
  select.parentElement.hidden = given.length < 2;
  select.replaceChildren(...given.map((_, n) => new Option(n + 1, n)));
  const some = await Promise.all(news.map(painted));
  if (masks !== news) return;
  masks = news.map((mask, n) => (some[n] ? mask : null));
  turn(Math.max(0, some.indexOf(true)));
}

async function decoded(uri) {
  const found = Object.assign(new Image(), { src: uri });
  await found.decode();
  return found;
}

/* The server sends a mask of a picture of which it has hidden nothing, too. */
async function painted(mask) {
  if (!mask) return false;
  const found = await decoded(mask), pen = new OffscreenCanvas(found.naturalWidth, found.naturalHeight).getContext("2d");
  pen.drawImage(found, 0, 0);
  return pen.getImageData(0, 0, found.naturalWidth, found.naturalHeight).data.some((value, n) => n % 4 === 3 && value > 127);
}

async function turn(n) {
  at = n;
  name();
  if (!given[n]) return;
  const mask = masks[n], [picture, paint] = await Promise.all([decoded(given[n]), mask && decoded(mask)]);
  if (at !== n || masks[n] !== mask) return; // meanwhile another is shown
  image.src = given[n];
  const scale = EDGE / Math.max(picture.naturalWidth, picture.naturalHeight);
  canvas.width = Math.max(1, Math.round(picture.naturalWidth * scale));
  canvas.height = Math.max(1, Math.round(picture.naturalHeight * scale));
  cursor = [canvas.width / 2, canvas.height / 2];
  point();
  if (!paint) return;
  const pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = false;
  pen.drawImage(paint, 0, 0, canvas.width, canvas.height);
}

/* The choice of a picture says which are painted. */
function name() {
  [...select.options].forEach((option, n) => (option.textContent = masks[n] ? `${n + 1} (painted)` : n + 1));
  select.value = at;
}

function width() {
  return (size.value / 100) * Math.min(canvas.width, canvas.height) * 2;
}

function stroke(from, to) {
  const pen = canvas.getContext("2d");
  Object.assign(pen, { strokeStyle: "#e8590c", lineCap: "round", lineWidth: width() });
  pen.beginPath();
  pen.moveTo(...from);
  pen.lineTo(to[0] + 0.01, to[1]);
  pen.stroke();
}

function keep(mask = canvas.toDataURL("image/png")) {
  past = remembered();
  tell(masks.map((each, n) => (n === at ? mask : each)));
}

function remembered() {
  return [...past, masks].slice(-BACK);
}

function tell(changed) {
  masks = changed;
  name();
  props.value = { pictures: given, masks, own: true };
  trigger("change");
}

function clear() {
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  if (masks[at]) keep(null);
}

function undo() {
  const before = past.pop();
  if (!before) return;
  const changed = before.findIndex((mask, n) => mask !== masks[n]);
  tell(before);
  turn(changed < 0 ? at : changed);
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
}

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  last = place(event);
  stroke(last, last);
});
canvas.addEventListener("pointermove", (event) => {
  cursor = place(event);
  point();
  if (!last) return;
  stroke(last, cursor);
  last = cursor;
});
for (const name of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(name, () => {
    if (last) keep();
    last = null;
  });
}
canvas.addEventListener("keydown", (event) => {
  const moves = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
  if (event.key in moves) cursor = cursor.map((value, n) => Math.min(Math.max(value + moves[event.key][n], 0), [canvas.width, canvas.height][n]));
  else if (event.key === " ") stroke(cursor, cursor), keep();
  else if (event.key === "z" && (event.ctrlKey || event.metaKey)) undo();
  else if (event.key === "Delete" || event.key === "Backspace") clear();
  else return;
  point();
  event.preventDefault();
});

/* The outline of the brush, where the pointer is or the keys have moved it. */
function point() {
  board.style.setProperty("--x", `${(100 * cursor[0]) / canvas.width}%`);
  board.style.setProperty("--y", `${(100 * cursor[1]) / canvas.height}%`);
  board.style.setProperty("--brush", `${(100 * width()) / canvas.width}%`);
}
size.addEventListener("input", point);
element.querySelector(".undo").addEventListener("click", undo);
element.querySelector(".clear").addEventListener("click", clear);
select.addEventListener("change", () => turn(Number(select.value)));
watch("value", show);
show();
