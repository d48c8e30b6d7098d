/* Reads pictures in the browser: what is sent is the file itself as a data URI, and of a video some of its frames. */
const FRAMES = 6, LONGEST_EDGE = 640, PATIENCE = 8000; // milliseconds that a video may take for a frame
const UNPLAYED = "the browser cannot play it: take WebM, or MP4 with H.264";
const list = element.querySelector(".given");
const input = element.querySelector("input");
element.querySelector("small").textContent = `Up to ${props.most} pictures; ${FRAMES} frames of a video (WebM, or MP4 with H.264); of a GIF its first frame`;
const complaint = element.querySelector(".complaint");

function draw() {
  const given = props.value || [];
  list.replaceChildren(...given.map(item));
  element.querySelector(".pictures").classList.toggle("some", given.length > 0);
}

function item({ name, data }, n) {
  const entry = document.createElement("li");
  const image = Object.assign(document.createElement("img"), { src: data, alt: name || `picture ${n + 1}` });
  const remove = Object.assign(document.createElement("button"), { type: "button", textContent: "×" });
  remove.setAttribute("aria-label", `Remove ${image.alt}`);
  remove.addEventListener("click", () => put(props.value.filter((_, i) => i !== n)));
  entry.append(image, remove);
  return entry;
}

function put(given) {
  props.value = given;
  trigger("change");
  draw();
}

/* One after another, or the last of two that are read at a time would undo the first. */
let taking = Promise.resolve();
function take(files) {
  return (taking = taking.then(() => add(files)));
}

async function add(files) {
  complaint.textContent = "";
  const found = [...(props.value || [])];
  for (const file of files) {
    try {
      if (file.type.startsWith("video/")) found.push(...(await framesOf(file)));
      else if (file.type.startsWith("image/")) found.push(await picture(file));
      else throw new Error("it is no picture and no video");
    } catch (error) {
      complaint.textContent = `${file.name}: ${error.message}`;
    }
  }
  if (found.length > props.most) complaint.textContent = `At most ${props.most} pictures are taken: the last are left out`;
  put(found.slice(0, props.most));
}

async function picture(file) {
  if (file.size > props.bytes) throw new Error(`it has more than ${props.bytes / 2 ** 20} MiB: choose a smaller one`);
  const data = await asUri(file), { naturalWidth: width, naturalHeight: height } = await decoded(data);
  if (width * height > props.pixels) throw new Error(`it has ${width} x ${height} pixels: at most ${Math.round(props.pixels / 2 ** 20)} megapixels are taken`);
  return { name: file.name, data };
}

async function decoded(data) {
  const image = Object.assign(new Image(), { src: data });
  await image.decode().catch(() => {
    throw new Error("it is no picture that the browser can read");
  });
  return image;
}

function asUri(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(new Error("the browser cannot read it"));
    reader.readAsDataURL(file);
  });
}

async function framesOf(file) {
  const video = Object.assign(document.createElement("video"), { muted: true, preload: "auto" });
  const source = URL.createObjectURL(file);
  try {
    await happens(video, "loadeddata", () => (video.src = source));
    if (video.duration === Infinity) await happens(video, "seeked", () => (video.currentTime = 1e6)); // then it is known
    const canvas = document.createElement("canvas"), found = [];
    const small = Math.min(1, LONGEST_EDGE / Math.max(video.videoWidth, video.videoHeight));
    canvas.width = Math.round(video.videoWidth * small);
    canvas.height = Math.round(video.videoHeight * small);
    for (let n = 0; n < FRAMES; n++) {
      const seconds = Number((((n + 0.5) / FRAMES) * video.duration).toFixed(2));
      await happens(video, "seeked", () => (video.currentTime = seconds));
      canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
      found.push({ name: `${file.name}, ${seconds} s`, data: canvas.toDataURL("image/jpeg", 0.9), seconds });
    }
    return found;
  } finally {
    URL.revokeObjectURL(source);
  }
}

function happens(video, event, start) {
  return new Promise((done, failed) => {
    const late = setTimeout(() => failed(new Error(UNPLAYED)), PATIENCE);
    video.addEventListener(event, () => (clearTimeout(late), done()), { once: true });
    video.addEventListener("error", () => (clearTimeout(late), failed(new Error(UNPLAYED))), { once: true });
    start();
  });
}

input.addEventListener("change", async () => {
  await take([...input.files]);
  input.value = "";
});
for (const name of ["dragover", "drop"]) {
  element.addEventListener(name, (event) => {
    event.preventDefault();
    element.querySelector(".pictures").classList.toggle("over", name === "dragover");
    if (name === "drop") take([...event.dataTransfer.files]);
  });
}
element.addEventListener("dragleave", () => element.querySelector(".pictures").classList.remove("over"));
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (files.length) take(files);
});
watch("value", draw);
draw();
