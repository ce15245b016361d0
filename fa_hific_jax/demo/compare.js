// The versions of one image: which of them lie on the two sides of the divider, and where to look.

const byId = id => document.getElementById(id);
const image = JSON.parse(byId("index").textContent);

function showSide(side) {
  const version = image.versions[byId(`${side}-codec`).value];
  Object.assign(byId(`${side}-picture`), { src: version.src, alt: `${image.name}, ${version.title}` });
  byId(`${side}-told`).textContent = version.told;
}

function lookAt(place) {
  view.reset();
  view.zoomBy(image.width / (2 * place.side));
  Object.assign(view, { x: place.x / image.width, y: place.y / image.height });
  view.show();
}

for (const [side, first] of [["left", 0], ["right", 1]]) {
  const select = byId(`${side}-codec`);
  select.append(...image.versions.map((version, i) => new Option(version.title, i, false, i === first)));
  select.addEventListener("change", () => showSide(side));
  showSide(side);
}
for (const place of image.places) {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: `look at ${place.x},${place.y}` });
  button.addEventListener("click", () => lookAt(place));
  byId("places").append(button);
}
document.documentElement.style.setProperty("--natural", `${image.width}px`);
document.documentElement.style.setProperty("--ratio", image.width / image.height);
setUpStage();
view.show();
