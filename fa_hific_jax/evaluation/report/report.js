// What is shown and what the controls do. Everything from the results reaches the page as text.

const byId = id => document.getElementById(id);
const data = JSON.parse(byId("index").textContent);
const ORIGINAL = "original";
const rateOf = row => Math.log(Math.max(row.bpp, 1e-9));
const nearest = (rows, bpp) => [...rows].sort((a, b) => Math.abs(rateOf(a) - rateOf({ bpp })) - Math.abs(rateOf(b) - rateOf({ bpp })))[0];
const labelOf = codec => (codec === ORIGINAL ? ORIGINAL : data.codecs[codec].label);

// The image on show, and its pictures: {original: {src, spectrum, radial}, rows: {key: {…, bits}}}.
let image, shown;
// What each side shows: the key of a row, or ORIGINAL.
const side = { left: ORIGINAL, right: null };

function fill(select, options, value) {
  select.replaceChildren(...options.map(([key, label]) => new Option(label, key)));
  if (options.some(([key]) => key === value)) select.value = value;
}

function tag(name, text = "", attributes = {}) {
  const element = Object.assign(document.createElement(name), attributes);
  element.append(text);
  return element;
}

// ---- The image on show

const rowOf = key => image.rows[key];
const picture = key => (key === ORIGINAL ? shown.original : shown.rows[key]);
const embedded = () => Object.keys(shown.rows).map(key => ({ key, ...rowOf(key) }));

// The row of a codec at the same point as before, else at the rate nearest to bpp.
function matching(codec, point, bpp) {
  if (codec === ORIGINAL && shown.original) return ORIGINAL;
  const own = embedded().filter(row => row.codec === codec);
  return (own.find(row => row.point === point) ?? nearest(own.length ? own : embedded(), bpp))?.key ?? ORIGINAL;
}

function choose(next) {
  const before = Object.fromEntries(Object.entries(side).map(([name, key]) => [name, key === ORIGINAL || !image ? null : rowOf(key)]));
  image = next;
  const found = [...document.querySelectorAll("script.pictures")].find(each => each.dataset.image === image.name);
  shown = found ? JSON.parse(found.textContent) : { original: null, rows: {} };
  const anchors = embedded().filter(row => row.codec === data.anchor);
  for (const name of ["left", "right"]) {
    const old = before[name];
    if (old) side[name] = matching(old.codec, old.point, old.bpp);
    else if (side[name] === ORIGINAL) side[name] = matching(ORIGINAL);
    else side[name] = (anchors[0] ?? embedded()[0])?.key ?? ORIGINAL;
  }
  view.reset();
  markCurrent();
  byId("image-name").textContent = `${image.name} · ${image.width} × ${image.height}`;
  for (const title of document.querySelectorAll(".of-image")) title.textContent = image.name;
  fillBitsChoice();
  showSides();
  if (byId("plot-of").value === "image") showRates();
}

function fillSides() {
  const codecs = Object.keys(data.codecs).filter(codec => embedded().some(row => row.codec === codec));
  for (const [name, key] of Object.entries(side)) {
    const codec = key === ORIGINAL ? ORIGINAL : rowOf(key)?.codec;
    const rows = embedded().filter(row => row.codec === codec);
    fill(byId(`${name}-codec`), [...(shown.original ? [[ORIGINAL, ORIGINAL]] : []), ...codecs.map(c => [c, labelOf(c)])], codec);
    fill(byId(`${name}-point`), rows.map(row => [row.key, `${row.bpp.toFixed(3)} bpp${row.label ? ` · ${row.label}` : ""}`]), key);
    byId(`${name}-point`).disabled = rows.length === 0;
  }
}

function showSides() {
  fillSides();
  const missing = !picture(side.left) || !picture(side.right);
  byId("stage").hidden = byId("zoom").hidden = missing;
  byId("no-picture").hidden = !missing;
  byId("no-picture").textContent = missing ? `No picture of ${image.name} is embedded in this page.` : "";
  document.documentElement.style.setProperty("--natural", `${image.width}px`);
  document.documentElement.style.setProperty("--ratio", image.width / image.height);
  for (const [name, key] of missing ? [] : Object.entries(side)) {
    const element = byId(`${name}-picture`);
    element.src = picture(key).src;
    element.alt = `${image.name}, ${describeSide(name)}`;
  }
  showNumbers();
  showFrequencies();
}

function describe(row) {
  return `${labelOf(row.codec)}${row.label ? ` ${row.label}` : ""}, ${row.bpp.toFixed(3)} bpp`;
}

const describeSide = name => (side[name] === ORIGINAL ? ORIGINAL : describe(rowOf(side[name])));

function showNumbers() {
  const rows = Object.values(side).filter(key => key !== ORIGINAL).map(rowOf);
  const head = tag("tr");
  head.append(...["", ...rows.map(describe)].map(text => tag("th", text, { scope: "col" })));
  byId("numbers").tHead.replaceChildren(head);
  const metrics = Object.entries(data.metrics).filter(([metric, about]) => rows.some(row => row.values[metric] != null || (row.not_measured[metric] && !about.not_measured)));
  byId("numbers").tBodies[0].replaceChildren(
    numberLine({ label: "bpp", decimals: 4 }, rows.map(row => row.bpp), []),
    ...metrics.map(([metric, about]) => numberLine(about, rows.map(row => row.values[metric]), rows.map(row => row.not_measured[metric]))),
  );
}

// A line of the table of numbers, the better of two values in bold.
function numberLine(about, values, reasons) {
  const merit = { higher: value => value, lower: value => -value, zero: value => -Math.abs(value) }[about.better];
  const known = values.every(value => value != null);
  const best = known && merit && values.length === 2 && values[0] !== values[1] ? Math.max(...values.map(merit)) : null;
  const line = tag("tr");
  line.append(tag("th", `${about.label}${about.unit ? ` ${about.unit}` : ""}`, { scope: "row" }));
  line.append(...values.map((value, i) => tag("td", value == null ? `not measured: ${reasons[i] ?? "no reason recorded"}` : value.toFixed(about.decimals), {
    className: value == null ? "lacking" : best !== null && merit(value) === best ? "better" : "",
  })));
  return line;
}

function setUpSides() {
  for (const [name, other] of [["left", "right"], ["right", "left"]]) {
    byId(`${name}-codec`).addEventListener("change", event => {
      const beside = rowOf(side[other]) ?? rowOf(side[name]) ?? embedded().find(row => row.codec === data.anchor) ?? embedded()[0];
      side[name] = matching(event.target.value, null, beside?.bpp);
      showSides();
    });
    byId(`${name}-point`).addEventListener("change", event => {
      side[name] = event.target.value;
      showSides();
    });
  }
}

// ---- Plots

function setUpRates() {
  fill(byId("plot-of"), [["mean", "means over the images"], ["image", "the image chosen below"]]);
  fill(byId("plot-range"), [["near", "up to twice the model’s"], ["all", "all"]]);
  for (const id of ["plot-of", "plot-range"]) byId(id).addEventListener("change", showRates);
}

function showRates() {
  const means = byId("plot-of").value === "mean";
  const rates = Object.values(data.curves).flat().filter(point => point.codec === data.anchor).map(point => point.bpp);
  const limit = byId("plot-range").value === "near" && rates.length ? 2 * Math.max(...rates) : Infinity;
  const near = point => point.bpp <= limit && point.value != null;
  for (const element of document.querySelectorAll("[data-metric]")) {
    const metric = element.dataset.metric;
    const own = Object.values(image?.rows ?? {}).map(row => ({ ...row, point: row.label, value: row.values[metric] }));
    const points = means ? data.curves[metric] : own.sort((a, b) => a.bpp - b.bpp);
    const published = means ? data.published.map((entry, index) => ({
      label: entry.label,
      index,
      points: entry.points.map(point => ({ bpp: point.bpp, value: point[metric] })).filter(near),
    })) : [];
    drawRates(element, points.filter(near), published.filter(entry => entry.points.length), data.codecs, data.metrics[metric]);
  }
}

function showFrequencies() {
  const [left, right] = [picture(side.left), picture(side.right)];
  for (const element of document.querySelectorAll("#frequencies ~ .plots")) element.hidden = !left || !right;
  if (!left || !right) return;
  const [a, b] = [left, right].map(each => wholeSpectrum(each.spectrum));
  const difference = b.map((row, y) => row.map((value, x) => value - a[y][x]));
  const limits = [share(a, 0.01), Math.max(share(a, 0.999), share(a, 0.01) + 1)];
  const reach = Math.max(1, share(difference.map(row => row.map(Math.abs)), 0.99));
  byId("spectrum-left-title").textContent = describeSide("left");
  byId("spectrum-right-title").textContent = describeSide("right");
  drawSpectrum(byId("spectrum-left"), a, limits, HEAT);
  drawSpectrum(byId("spectrum-right"), b, limits, HEAT);
  drawSpectrum(byId("spectrum-difference"), difference, [-reach, reach], DIFFERENCE);
  const curves = radialCurves();
  drawRadial(byId("radial"), curves);
  const base = shown.original?.radial.y;
  byId("radial-relative").parentElement.hidden = !base;
  if (base) drawRadial(byId("radial-relative"), curves.map(curve => ({ ...curve, y: curve.y.map((v, i) => v - base[i]) })));
}

// The original, every codec at the rate nearest to the right side's, and both sides.
function radialCurves() {
  const bpp = rowOf(side.right)?.bpp ?? rowOf(side.left)?.bpp ?? embedded()[0]?.bpp;
  const rows = Object.keys(data.codecs).map(codec => nearest(embedded().filter(row => row.codec === codec), bpp)).filter(Boolean);
  const sides = Object.values(side).filter(key => key !== ORIGINAL);
  const keys = [...new Set([...rows.map(row => row.key), ...sides])];
  const curves = keys.map(key => ({
    name: describe(rowOf(key)), color: data.codecs[rowOf(key).codec].color, width: sides.includes(key) ? 3 : 1.2, ...shown.rows[key].radial,
  }));
  if (shown.original) curves.unshift({ name: ORIGINAL, color: color("ink"), width: 2, ...shown.original.radial });
  return curves;
}

function fillBitsChoice() {
  const rows = embedded().filter(row => shown.rows[row.key].bits);
  fill(byId("bits-of"), rows.map(row => [row.key, describe(row)]), side.right);
  showBits();
}

function showBits() {
  const bits = shown.rows[byId("bits-of").value]?.bits;
  byId("bits-map").hidden = !bits;
  if (!bits) {
    byId("bits-sum").textContent = "No codec of this image says where its bits went.";
    return;
  }
  const latent = byId("bits-latent").value;
  const [y, z] = [unpack(bits.y), unpack(bits.z)];
  const under = (row, count, of) => Math.floor((row * of) / count);
  const both = y.map((row, i) => row.map((value, j) => value + z[under(i, y.length, z.length)][under(j, row.length, z[0].length)]));
  const source = (shown.original ?? shown.rows[byId("bits-of").value]).src;
  drawBits(byId("bits-map"), { both, y, z }[latent], bits[latent === "z" ? "z" : "y"].size, image, source, byId("bits-opacity").value / 100);
  byId("bits-sum").textContent = `${describe(rowOf(byId("bits-of").value))}: y ${bits.y.bpp.toFixed(4)} bpp, z ${bits.z.bpp.toFixed(4)} bpp; the rest is the file’s header. Cells cover ${bits.y.size.map(Math.round).join(" × ")} (y) and ${bits.z.size.map(Math.round).join(" × ")} (z) pixels.`;
}

function setUpBits() {
  fill(byId("bits-latent"), [["both", "y and z"], ["y", "y, the image’s latents"], ["z", "z, the side information"]]);
  for (const id of ["bits-of", "bits-latent"]) byId(id).addEventListener("change", showBits);
  byId("bits-opacity").addEventListener("input", event => Plotly.restyle(byId("bits-map"), { opacity: event.target.value / 100 }));
}

setUpGallery();
setUpSides();
setUpStage();
setUpRates();
setUpBits();
showGallery();
choose(data.images[0]);
showRates();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  showRates();
  showFrequencies();
  showBits();
});
