"use strict";
// The charts of the page, drawn by plotly. Numbers come from report.js.

const HEAT = [[0, "#0b0724"], [0.2, "#3b0f70"], [0.4, "#8c2981"], [0.6, "#de4968"], [0.8, "#fe9f6d"], [1, "#fcfdbf"]];
const DIFFERENCE = [[0, "#1c5fa8"], [0.25, "#7db3da"], [0.5, "#f4f4f4"], [0.75, "#e9907a"], [1, "#b2182b"]];
const OPEN = ["x", "cross", "hexagram", "bowtie"]; // Of published points.
const TOUCH = matchMedia("(pointer: coarse)").matches;
const MARGIN = { l: 52, r: 10, t: 8, b: 42 };

// plotly reads some HTML in labels; names are only text.
const plain = text => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function axis(title, more = {}) {
  const lines = { gridcolor: color("rule"), zerolinecolor: color("rule"), linecolor: color("soft") };
  return { title: { text: title, standoff: 8 }, automargin: true, ...lines, ...more };
}

function draw(element, traces, layout) {
  const page = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: color("ink") },
    margin: MARGIN,
    showlegend: false,
    hoverlabel: { align: "left" },
    dragmode: TOUCH ? false : "zoom", // A finger scrolls the page.
  };
  // Its buttons would be eight stops of the tabulator key for each plot.
  const config = { responsive: true, displayModeBar: false };
  return Plotly.react(element, traces, { ...page, ...layout }, config);
}

// points: [{codec, point, bpp, value}] in order of rate; published: [{label, index, points: [{bpp, value}]}].
function drawRates(element, points, published, looks, about) {
  const traces = Object.entries(looks).map(([codec, look]) => {
    const own = points.filter(point => point.codec === codec);
    return {
      x: own.map(point => point.bpp),
      y: own.map(point => point.value),
      text: own.map(point => plain(point.point)),
      mode: "lines+markers",
      marker: { color: look.color, symbol: look.marker, size: look.kind === "baseline" ? 7 : 10 },
      line: { color: look.color, width: look.kind === "baseline" ? 1.3 : 2.6 },
      hovertemplate: `<b>${plain(look.label)}</b> %{text}<br>%{x:.4f} bpp<br>%{y:.${about.decimals}f} ${plain(about.unit || "")}<extra></extra>`,
    };
  });
  const roomy = element.clientWidth > 380; // Otherwise the legend has to do.
  published.forEach(entry => traces.push({
    x: entry.points.map(point => point.bpp),
    y: entry.points.map(point => point.value),
    text: entry.points.map((_, i) => (roomy && i === 0 ? plain(entry.label) : "")),
    mode: "markers+text",
    textposition: about.better === "higher" ? "bottom right" : "top right",
    textfont: { size: 10, color: color("soft") },
    cliponaxis: false,
    marker: { symbol: `${OPEN[entry.index % OPEN.length]}-open`, size: 9, color: color("soft") },
    hovertemplate: `<b>${plain(entry.label)}</b>, published<br>%{x:.4f} bpp<br>%{y}<extra></extra>`,
  }));
  draw(element, traces, { xaxis: axis("bits per pixel", { rangemode: "tozero" }), yaxis: axis("") });
}

// Bytes of Python's pack() as rows of numbers.
function unpack(packed) {
  const codes = atob(packed.data);
  const [height, width] = packed.shape;
  return Array.from({ length: height }, (_, y) =>
    Array.from({ length: width }, (_, x) => packed.low + packed.step * codes.charCodeAt(y * width + x)));
}

// The packed half, and below it the same turned by half a circle.
function wholeSpectrum(packed) {
  const half = unpack(packed);
  return half.concat(half.slice(0, -1).reverse().map(row => [...row].reverse()));
}

function share(values, part) {
  const sorted = values.flat().sort((a, b) => a - b);
  return sorted[Math.round(part * (sorted.length - 1))];
}

function drawSpectrum(element, z, limits, colorscale) {
  const trace = {
    type: "heatmap", z, colorscale, zmin: limits[0], zmax: limits[1],
    x0: -0.5 + 0.5 / z[0].length, dx: 1 / z[0].length, y0: -0.5 + 0.5 / z.length, dy: 1 / z.length,
    colorbar: { thickness: 10, title: { text: "dB", side: "top" }, outlinewidth: 0 },
    hovertemplate: "%{x:.2f}, %{y:.2f} cycles per pixel<br>%{z:.1f} dB<extra></extra>",
  };
  const ticks = { tickvals: [-0.5, 0, 0.5], range: [-0.5, 0.5], constrain: "domain" };
  draw(element, [trace], {
    xaxis: axis("cycles per pixel", ticks),
    yaxis: axis("", { ...ticks, scaleanchor: "x" }),
    margin: { ...MARGIN, l: 36 },
  });
}

// curves: [{name, color, width, x, y}]
function drawRadial(element, curves) {
  const traces = curves.map(curve => ({
    x: curve.x, y: curve.y, mode: "lines", line: { color: curve.color, width: curve.width },
    hovertemplate: `<b>${plain(curve.name)}</b><br>%{x:.3f} cycles per pixel<br>%{y:.2f} dB<extra></extra>`,
  }));
  draw(element, traces, { xaxis: axis("cycles per pixel", { range: [0, 0.5] }), yaxis: axis("") });
}

// z over the picture; cell: width and height of a cell of z in pixels of the image.
function drawBits(element, z, cell, image, picture, opacity) {
  const trace = {
    type: "heatmap", z, opacity, colorscale: HEAT, zmin: 0, zmax: Math.max(share(z, 0.995), 1e-6),
    x0: cell[0] / 2, dx: cell[0], y0: cell[1] / 2, dy: cell[1],
    colorbar: { orientation: "h", thickness: 10, len: 0.8, y: -0.02, yanchor: "top", title: { text: "bits per pixel", side: "bottom" }, outlinewidth: 0 },
    hovertemplate: "%{x}, %{y}<br>%{z:.3f} bpp<extra></extra>",
  };
  const below = { source: picture, xref: "x", yref: "y", x: 0, y: 0, sizex: image.width, sizey: image.height, sizing: "stretch", layer: "below" };
  const height = (element.clientWidth * image.height) / image.width;
  element.style.height = `${Math.min(height, 0.8 * innerHeight) + 80}px`;
  const edge = { showgrid: false, zeroline: false, constrain: "domain", showticklabels: false, ticks: "" };
  draw(element, [trace], {
    images: picture ? [below] : [],
    xaxis: axis("", { ...edge, range: [0, image.width] }),
    yaxis: axis("", { ...edge, range: [image.height, 0], scaleanchor: "x" }),
    margin: { l: 4, r: 4, t: 8, b: 72 },
  });
}
