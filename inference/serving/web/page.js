"use strict";
// The page at /: sends a slice to the service and draws the mask over it. Contacts no other host.

const API_KEY = "segfleet-key";
const element = (id) => document.getElementById(id);
const sliceCanvas = element("slice");
const maskCanvas = element("mask");
let currentFile = null;
let result = null; // the response for currentFile
const hiddenClasses = new Set(); // by name, for all slices
const chosenColors = new Map();
let lastRequestId = 0; // a response to an earlier request is ignored

async function segment(file) {
  const requestId = ++lastRequestId;
  currentFile = file;
  result = null;
  showStatus("Segmenting…");
  resetOverlay(file);
  const image = await createImageBitmap(file).catch(() => null);
  if (requestId !== lastRequestId) return;
  drawSlice(image);
  const start = performance.now();
  let response;
  try {
    response = await fetch("/v1/segment", { method: "POST", headers: segmentHeaders(file), body: file });
  } catch {
    return requestId === lastRequestId && showError("The service cannot be reached: is it still running?");
  }
  const seconds = (performance.now() - start) / 1000;
  const content = await response.json().catch(() => ({ error: `The service responded with status ${response.status}.` }));
  if (requestId !== lastRequestId) return;
  if (response.status === 401) return showApiKeyForm(content.error);
  if (!response.ok) return showError(content.error);
  result = content;
  showClasses();
  drawMask();
  showResult(seconds);
}

function segmentHeaders(file) {
  const contentType = file.type.startsWith("image/") ? file.type : "application/octet-stream";
  return { ...authorizationHeader(), Accept: "application/json", "Content-Type": contentType };
}

function authorizationHeader() {
  const key = sessionStorage.getItem(API_KEY);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

function resetOverlay(file) {
  element("drop-zone").hidden = true;
  element("overlay").hidden = false;
  element("result").hidden = true;
  element("classes").hidden = true;
  element("controls").disabled = true;
  element("file-name").textContent = file.name;
  maskCanvas.getContext("2d").clearRect(0, 0, maskCanvas.width, maskCanvas.height);
  maskCanvas.setAttribute("aria-label", "");
}

function drawSlice(image) {
  if (image) {
    resizeCanvases(image.width, image.height);
    sliceCanvas.getContext("2d").drawImage(image, 0, 0);
  } else {
    // Browsers cannot decode TIFF. For a file that is not an image, the service returns an error.
    resizeCanvases(1, 1);
    element("file-name").textContent += " (this browser cannot display the slice itself)";
  }
}

function resizeCanvases(width, height) {
  for (const canvas of [sliceCanvas, maskCanvas]) Object.assign(canvas, { width, height });
}

function drawMask() {
  const { width, height } = result;
  if (sliceCanvas.width !== width || sliceCanvas.height !== height) resizeCanvases(width, height);
  const pixels = new ImageData(width, height);
  for (const each of result.classes) if (each.visible) drawClass(pixels, each);
  maskCanvas.getContext("2d").putImageData(pixels, 0, 0);
  updateOpacity();
}

function drawClass(pixels, { mask, color }) {
  const { width, height } = pixels;
  const rgb = [1, 3, 5].map((digit) => parseInt(color.slice(digit, digit + 2), 16));
  let start = 0; // runs go down the columns; every second one is of the class
  mask.counts.forEach((length, run) => {
    if (run % 2) {
      for (let index = start; index < start + length; index++) {
        const row = index % height;
        const column = (index - row) / height;
        pixels.data.set([...rgb, 255], 4 * (row * width + column));
      }
    }
    start += length;
  });
}

// An entry for each class: a switch, its color, its area and its bounding box.
function showClasses() {
  const entries = result.classes.map((each) => {
    each.color = chosenColors.get(each.name) ?? each.color;
    each.visible = !hiddenClasses.has(each.name);
    const percent = (100 * each.area) / (result.width * result.height);
    const box = each.bounding_box;
    const entry = document.createElement("li");
    const texts = [
      `${each.area.toLocaleString("en")} px`,
      `${percent.toFixed(2)} %`,
      box ? `${box.width} × ${box.height} at ${box.x}, ${box.y}` : "no bounding box",
    ];
    entry.append(classControls(each), ...texts.map(createOutput));
    return entry;
  });
  element("classes").replaceChildren(...entries);
  element("classes").hidden = false;
}

function createOutput(text) {
  return Object.assign(document.createElement("output"), { textContent: text });
}

function classControls(each) {
  const label = document.createElement("label");
  const visible = Object.assign(document.createElement("input"), { type: "checkbox", checked: each.visible });
  const color = Object.assign(document.createElement("input"), { type: "color", value: each.color });
  color.setAttribute("aria-label", `Color of ${each.name}`);
  visible.addEventListener("change", () => {
    each.visible = visible.checked;
    each.visible ? hiddenClasses.delete(each.name) : hiddenClasses.add(each.name);
    drawMask();
  });
  color.addEventListener("input", () => {
    each.color = color.value;
    chosenColors.set(each.name, each.color);
    drawMask();
  });
  label.append(visible, color, each.name);
  return label;
}

function updateOpacity() {
  const percent = element("opacity").value;
  maskCanvas.style.opacity = percent / 100;
  element("opacity-value").textContent = `${percent} %`;
}

function showResult(seconds) {
  element("size").textContent = `${result.width} × ${result.height} px`;
  element("time").textContent = `${seconds.toFixed(3)} s, of which ${result.seconds.toFixed(3)} s in the service`;
  for (const id of ["model", "served-model"]) element(id).textContent = `${result.model}@${result.version}`;
  element("result").hidden = false;
  element("controls").disabled = false;
  const area = result.classes.reduce((sum, each) => sum + each.area, 0);
  const summary = area ? `Mask of ${area} pixels.` : "The mask of this slice is empty.";
  maskCanvas.setAttribute("aria-label", summary);
  showStatus(summary);
}

function showStatus(text) {
  element("status").textContent = text;
  element("error").hidden = true;
  element("api-key-form").hidden = true;
}

function showError(text) {
  showStatus("No mask.");
  element("controls").disabled = false;
  element("error").textContent = text;
  element("error").hidden = false;
}

function showApiKeyForm(error) {
  showError(error);
  element("api-key-form").hidden = false;
  element("api-key").focus();
}

// The mask in the colors of the model, or 0 and 255 with a single class.
async function saveMask() {
  if (!result) return;
  const format = result.classes.length > 1 ? "colors" : "indices";
  const headers = { ...segmentHeaders(currentFile), Accept: "image/png" };
  const request = { method: "POST", headers, body: currentFile };
  const response = await fetch(`/v1/segment?mask_format=${format}`, request).catch(() => null);
  if (!response || !response.ok) return showError("The mask could not be saved: is the service still running?");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = `${currentFile.name.replace(/\.[^.]*$/, "")}-mask.png`;
  link.click();
  URL.revokeObjectURL(link.href);
}

function segmentFirst(files) {
  if (files.length) segment(files[0]);
}

async function showServedModel() {
  const response = await fetch("/v1/model", { headers: authorizationHeader() }).catch(() => null);
  if (!response || !response.ok) return element("served-model").replaceChildren("model unknown");
  const { model, version, image_size: [height, width] } = await response.json();
  element("served-model").textContent = `${model}@${version}`;
  element("input-size").textContent = `${width} × ${height} pixels`;
}

element("file").addEventListener("change", (event) => {
  segmentFirst(event.target.files);
  event.target.value = "";
});
element("opacity").addEventListener("input", updateOpacity);
element("save-mask").addEventListener("click", saveMask);
element("choose-file").addEventListener("click", () => element("file").click());
element("api-key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(API_KEY, element("api-key").value);
  showServedModel();
  if (currentFile) segment(currentFile);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  segmentFirst(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => segmentFirst(event.clipboardData.files));
showServedModel();
