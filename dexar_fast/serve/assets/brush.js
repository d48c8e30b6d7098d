/* Paints what to hide over the picture of the last question: a mask for each picture, as a small PNG. The server sends
   the pictures, and with masks of its own what it has hidden; the latter it may send again when nothing is new. */
const EDGE = 256, STEP = 8; // pixels: of a mask's longer edge, of a press of an arrow key
const board = element.querySelector(".board"), canvas = element.querySelector("canvas"), image = element.querySelector("img");
const [select, size] = [element.querySelector("select"), element.querySelector("input")];
let given = [], masks = [], told = "", at = 0, cursor = null, last = null;

function show() {
  const { pictures, masks: hidden, own } = props.value ?? {};
  if (!pictures || own) return;
  const sent = hidden?.join() ?? "", known = pictures.join() === given.join();
  const keeps = known && (!sent || sent === told);
  told = sent;
  if (keeps) return;
  given = pictures;
  masks = hidden ?? given.map(() => null);
  at = known ? at : 0;
  element.querySelector(".nothing-yet").hidden = given.length > 0;
  board.hidden = element.querySelector(".canvas-row").hidden = !given.length;
  select.parentElement.hidden = given.length < 2;
  select.replaceChildren(...given.map((_, n) => new Option(n + 1, n)));
  select.value = at;
  turn(at);
}

async function turn(n) {
  at = n;
  if (!given[at]) return;
  image.src = given[at];
  await image.decode();
  const scale = EDGE / Math.max(image.naturalWidth, image.naturalHeight);
  canvas.width = Math.max(1, Math.round(image.naturalWidth * scale));
  canvas.height = Math.max(1, Math.round(image.naturalHeight * scale));
  cursor = [canvas.width / 2, canvas.height / 2];
  if (!masks[at]) return;
  const painted = Object.assign(new Image(), { src: masks[at] });
  await painted.decode();
  const pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = false;
  pen.drawImage(painted, 0, 0, canvas.width, canvas.height);
}

function stroke(from, to) {
  const pen = canvas.getContext("2d");
  Object.assign(pen, { strokeStyle: "#e8590c", lineCap: "round", lineWidth: (size.value / 100) * Math.min(canvas.width, canvas.height) * 2 });
  pen.beginPath();
  pen.moveTo(...from);
  pen.lineTo(to[0] + 0.01, to[1]);
  pen.stroke();
}

function keep(mask = canvas.toDataURL("image/png")) {
  masks = masks.map((each, n) => (n === at ? mask : each));
  props.value = { pictures: given, masks, own: true };
  trigger("change");
}

function clear() {
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  keep(null);
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
  if (!last) return;
  const next = place(event);
  stroke(last, next);
  last = next;
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
  else if (event.key === "Delete" || event.key === "Backspace") clear();
  else return;
  point();
  event.preventDefault();
});

/* Where the keys have moved the brush. */
function point() {
  board.style.setProperty("--x", `${(100 * cursor[0]) / canvas.width}%`);
  board.style.setProperty("--y", `${(100 * cursor[1]) / canvas.height}%`);
}
element.querySelector(".clear").addEventListener("click", clear);
select.addEventListener("change", () => turn(Number(select.value)));
watch("value", show);
show();
