// The small pictures of all images, and their order.

const pointKey = row => JSON.stringify([row.codec, row.point]);
const sortControls = () => ["sort-by", "sort-of", "sort-less"].map(byId);
let descending = false;

function setUpGallery() {
  const first = data.images.flatMap(each => Object.values(each.rows));
  const points = new Map(first.map(row => [pointKey(row), `${labelOf(row.codec)} ${row.point}`.trim()]));
  const metrics = Object.entries(data.metrics).filter(([m]) => first.some(row => row.values[m] != null));
  const anchors = first.filter(row => row.codec === data.anchor);
  fill(sortControls()[0], [["name", "name"], ["bpp", "bpp"], ...metrics.map(([m, about]) => [m, about.label])]);
  fill(sortControls()[1], [...points], anchors.length ? pointKey(anchors[0]) : undefined);
  fill(sortControls()[2], [["", "nothing"], ...points]);
  for (const control of sortControls()) control.addEventListener("change", showGallery);
  byId("sort-order").addEventListener("click", event => {
    descending = !descending;
    event.target.textContent = descending ? "largest first" : "smallest first";
    showGallery();
  });
}

// The number by which an image is sorted; null where it was not measured.
function sortValue(each) {
  const [by, of, less] = sortControls().map(control => control.value);
  const value = key => {
    const row = Object.values(each.rows).find(row => pointKey(row) === key);
    return (row && (by === "bpp" ? row.bpp : row.values[by])) ?? null;
  };
  if (!less) return value(of);
  return value(of) === null || value(less) === null ? null : value(of) - value(less);
}

function showGallery() {
  const by = sortControls()[0].value;
  for (const control of sortControls().slice(1)) control.disabled = by === "name";
  const entries = data.images.map(each => [each, by === "name" ? each.name : sortValue(each)]);
  const order = by === "name" ? (a, b) => a[1].localeCompare(b[1], undefined, { numeric: true }) : (a, b) => a[1] - b[1];
  const known = entries.filter(entry => entry[1] !== null).sort(order);
  if (descending) known.reverse();
  const sorted = [...known, ...entries.filter(entry => entry[1] === null)];
  const decimals = data.metrics[by]?.decimals ?? 4;
  byId("gallery").replaceChildren(...sorted.map(([each, value]) => {
    const button = tag("button", "", { type: "button", title: each.name });
    const frame = tag("span", each.thumbnail ? "" : "no picture", { className: "frame" });
    if (each.thumbnail) frame.append(tag("img", "", { src: each.thumbnail, alt: "" }));
    button.append(frame, tag("span", each.name, { className: "name" }));
    if (by !== "name") button.append(tag("span", value === null ? "not measured" : value.toFixed(decimals), { className: "value" }));
    button.addEventListener("click", () => choose(each));
    const item = tag("li");
    item.append(button);
    return item;
  }));
  byId("sorted").textContent = `${sorted.length} images by ${sortControls()[0].selectedOptions[0].text}` +
    (known.length < sorted.length ? `, ${sorted.length - known.length} not measured at the end` : "");
  markCurrent();
}

function markCurrent() {
  for (const button of byId("gallery").querySelectorAll("button")) {
    button.setAttribute("aria-current", button.title === image?.name);
  }
}
