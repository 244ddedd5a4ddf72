"use strict";
// The page at /: one slice in, its mask over it. Speaks to this service alone.

const find = (id) => document.getElementById(id);
const slice = find("slice");
const mask = find("mask");
let found = null; // the service's answer for the slice shown
let sent = null; // the file it is of
let turn = 0; // counts the slices, so that a late answer to an earlier one is dropped

async function segment(file) {
  const mine = ++turn;
  sent = file;
  found = null;
  tell("Segmenting…");
  clear(file);
  const picture = await createImageBitmap(file).catch(() => null);
  if (mine !== turn) return;
  show(picture);
  const start = performance.now();
  let answer;
  try {
    answer = await fetch("/v1/segment", { method: "POST", headers: headersFor(file), body: file });
  } catch {
    return mine === turn && fail("The service cannot be reached: is it still running?");
  }
  const seconds = (performance.now() - start) / 1000;
  const content = await answer.json().catch(() => ({ error: `The service answered ${answer.status}.` }));
  if (mine !== turn) return;
  if (answer.status === 401) return askForKey(content.error);
  if (!answer.ok) return fail(content.error);
  found = content;
  draw();
  report(seconds);
}

function headersFor(file) {
  const image = file.type.startsWith("image/") ? file.type : "application/octet-stream";
  return { ...authorization(), Accept: "application/json", "Content-Type": image };
}

function authorization() {
  const key = sessionStorage.getItem("segfleet-key");
  return key ? { Authorization: `Bearer ${key}` } : {};
}

function clear(file) {
  find("drop").hidden = true;
  find("view").hidden = false;
  find("figures").hidden = true;
  find("controls").disabled = true;
  find("name").textContent = file.name;
  mask.getContext("2d").clearRect(0, 0, mask.width, mask.height);
  mask.setAttribute("aria-label", "");
}

function show(picture) {
  if (picture) {
    size(picture.width, picture.height);
    slice.getContext("2d").drawImage(picture, 0, 0);
  } else {
    // TIFF, and files that are not images: the service says which.
    size(1, 1);
    find("name").textContent += " (this browser cannot show the slice itself)";
  }
}

function size(width, height) {
  for (const canvas of [slice, mask]) Object.assign(canvas, { width, height });
}

function draw() {
  if (slice.width !== found.width || slice.height !== found.height) size(found.width, found.height);
  const pixels = new ImageData(found.width, found.height);
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(find("tint").value.slice(at, at + 2), 16));
  let place = 0; // down the columns, as the runs go
  found.mask.counts.forEach((length, run) => {
    if (run % 2) {
      for (let at = place; at < place + length; at++) {
        const row = at % found.height;
        const column = (at - row) / found.height;
        pixels.data.set([red, green, blue, 255], 4 * (row * found.width + column));
      }
    }
    place += length;
  });
  mask.getContext("2d").putImageData(pixels, 0, 0);
  fade();
}

function fade() {
  const percent = find("opacity").value;
  mask.style.opacity = percent / 100;
  find("opacity-value").textContent = `${percent} %`;
}

function report(seconds) {
  const share = (100 * found.area) / (found.width * found.height);
  const box = found.bounding_box;
  find("area").textContent = `${found.area.toLocaleString("en")} px`;
  find("share").textContent = `${share.toFixed(2)} % of ${found.width} × ${found.height}`;
  find("box").textContent = box ? `${box.width} × ${box.height} at ${box.x}, ${box.y}` : "none";
  find("seconds").textContent = `${seconds.toFixed(3)} s, of which the service ${found.seconds.toFixed(3)} s`;
  find("version").textContent = `${found.model}@${found.version}`;
  find("model").textContent = `${found.model}@${found.version}`;
  find("figures").hidden = false;
  find("controls").disabled = false;
  const summary = found.area ? `Mask of ${found.area} pixels.` : "Nothing was found in this slice.";
  mask.setAttribute("aria-label", summary);
  tell(summary);
}

function tell(text) {
  find("status").textContent = text;
  find("error").hidden = true;
  find("key-form").hidden = true;
}

function fail(sentence) {
  tell("No mask.");
  find("controls").disabled = false;
  find("error").textContent = sentence;
  find("error").hidden = false;
}

function askForKey(sentence) {
  fail(sentence);
  find("key-form").hidden = false;
  find("key").focus();
}

function save() {
  if (!found) return;
  const picture = Object.assign(document.createElement("canvas"), { width: found.width, height: found.height });
  const pen = picture.getContext("2d");
  pen.fillRect(0, 0, picture.width, picture.height);
  pen.drawImage(mask, 0, 0);
  const pixels = pen.getImageData(0, 0, picture.width, picture.height);
  const color = mask.getContext("2d").getImageData(0, 0, mask.width, mask.height).data;
  for (let at = 0; at < color.length; at += 4) pixels.data.fill(color[at + 3], at, at + 3);
  pen.putImageData(pixels, 0, 0);
  picture.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${sent.name.replace(/\.[^.]*$/, "")}-mask.png`;
    link.click();
    URL.revokeObjectURL(link.href);
  });
}

function take(files) {
  if (files.length) segment(files[0]);
}

async function nameModel() {
  const answer = await fetch("/v1/model", { headers: authorization() }).catch(() => null);
  if (!answer || !answer.ok) return find("model").replaceChildren("model not known yet");
  const model = await answer.json();
  find("model").textContent = `${model.model}@${model.version}`;
}

find("file").addEventListener("change", (event) => {
  take(event.target.files);
  event.target.value = "";
});
find("opacity").addEventListener("input", fade);
find("tint").addEventListener("input", () => found && draw());
find("save").addEventListener("click", save);
find("another").addEventListener("click", () => find("file").click());
find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("segfleet-key", find("key").value);
  nameModel();
  if (sent) segment(sent);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  take(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => take(event.clipboardData.files));
nameModel();
