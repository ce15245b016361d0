// Divider, zoom and movement: one transform and one cut serve both pictures, so they stay in step.

const view = {
  cut: 50, zoom: 1, x: 0.5, y: 0.5, // percent; factor; what lies in the middle, as part of the sides

  reset() {
    Object.assign(view, { zoom: 1, x: 0.5, y: 0.5 });
    view.show();
  },

  slide(percent) {
    view.cut = Math.min(100, Math.max(0, percent));
    view.show();
  },

  // Zooms by a factor; the place of the stage at (u, v), 0 to 1, keeps what it shows.
  zoomBy(factor, u = 0.5, v = 0.5) {
    const old = view.zoom;
    const most = Math.max(4, (16 * image.width) / byId("stage").clientWidth);
    view.zoom = Math.min(most, Math.max(1, old * factor));
    view.x += (u - 0.5) * (1 / old - 1 / view.zoom);
    view.y += (v - 0.5) * (1 / old - 1 / view.zoom);
    view.show();
  },

  // Moves what is shown by parts of the stage.
  move(right, down) {
    view.x += right / view.zoom;
    view.y += down / view.zoom;
    view.show();
  },

  show() {
    const stage = byId("stage");
    const half = 0.5 / view.zoom;
    for (const axis of ["x", "y"]) view[axis] = Math.min(1 - half, Math.max(half, view[axis]));
    const shift = part => `${((0.5 - part * view.zoom) * 100).toFixed(4)}%`;
    stage.style.setProperty("--view", `translate(${shift(view.x)}, ${shift(view.y)}) scale(${view.zoom})`);
    stage.style.setProperty("--cut", `${view.cut}%`);
    stage.classList.toggle("zoomed", view.zoom > 1);
    stage.classList.toggle("pixels", view.zoom * stage.clientWidth >= 2 * image.width);
    byId("divider").setAttribute("aria-valuenow", Math.round(view.cut));
    byId("divider").setAttribute("aria-valuetext", `${Math.round(view.cut)} % left picture`);
    byId("zoom-level").textContent = `${Math.round(view.zoom * 100)} %`;
  },
};

function setUpStage() {
  const stage = byId("stage");
  const fingers = new Map();
  let sliding = false;
  const place = event => {
    const box = stage.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  const spread = () => {
    const [a, b] = [...fingers.values()];
    return { length: Math.hypot(a[0] - b[0], a[1] - b[1]), middle: [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2] };
  };
  stage.addEventListener("pointerdown", event => {
    if (event.button) return;
    stage.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, place(event));
    sliding = fingers.size === 1 && (view.zoom === 1 || byId("divider").contains(event.target));
    if (sliding && !byId("divider").contains(event.target)) view.slide(100 * place(event)[0]);
  });
  stage.addEventListener("pointermove", event => {
    if (!fingers.has(event.pointerId)) return;
    const [now, before] = [place(event), fingers.get(event.pointerId)];
    const pinch = fingers.size === 2 && spread();
    fingers.set(event.pointerId, now);
    if (pinch) {
      const after = spread();
      view.zoomBy(after.length / Math.max(pinch.length, 0.01), ...after.middle);
      view.move(pinch.middle[0] - after.middle[0], pinch.middle[1] - after.middle[1]);
    } else if (sliding) view.slide(100 * now[0]);
    else view.move(before[0] - now[0], before[1] - now[1]);
  });
  for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, event => fingers.delete(event.pointerId));
  stage.addEventListener("dblclick", event => (view.zoom > 1 ? view.reset() : view.zoomBy(4, ...place(event))));
  stage.addEventListener("wheel", event => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    view.zoomBy(Math.exp(-event.deltaY / 200), ...place(event));
  }, { passive: false });
  stage.addEventListener("keydown", key);
  byId("zoom-in").addEventListener("click", () => view.zoomBy(1.5));
  byId("zoom-out").addEventListener("click", () => view.zoomBy(1 / 1.5));
  byId("zoom-fit").addEventListener("click", () => view.reset());
}

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const onDivider = event.target === byId("divider");
  const step = event.shiftKey ? 10 : 2;
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const arrow = arrows[event.key];
  const actions = {
    "+": () => view.zoomBy(1.5), "=": () => view.zoomBy(1.5), "-": () => view.zoomBy(1 / 1.5), 0: () => view.reset(),
    Home: onDivider && (() => view.slide(0)), End: onDivider && (() => view.slide(100)),
    PageUp: onDivider && (() => view.slide(view.cut + 10)), PageDown: onDivider && (() => view.slide(view.cut - 10)),
  };
  const along = arrow && (onDivider ? arrow[0] - arrow[1] : arrow[0]);
  const slide = arrow && (onDivider || view.zoom === 1) && along && (() => view.slide(view.cut + step * along));
  const action = slide || (arrow && !onDivider && view.zoom > 1 && (() => view.move(arrow[0] / 10, arrow[1] / 10))) || actions[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}
