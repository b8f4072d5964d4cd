// A drawn timeline: the pointer, the slider and the arrow keys choose a frame, whose numbers are read out below.

class TimelineView {
  constructor(place, video) {
    Object.assign(this, { place, video, row: 0, zoom: [video.time[0], video.end], onSeek: () => {} });
    this.plot = element("div", { className: "plot", role: "img", ariaLabel: this.summary() });
    this.cursor = element("div", { className: "cursor", hidden: true });
    this.slider = element("input", { type: "range", min: 0, max: video.T - 1, value: 0, step: 1 });
    this.slider.addEventListener("input", () => this.choose(Number(this.slider.value), true));
    const whole = element("button", { type: "button", textContent: "Whole video" });
    whole.addEventListener("click", () => this.show(video.time[0], video.end));
    this.readout = element("div", { className: "readout" });
    const label = element("label", {}, "Frame", this.slider);
    place.replaceChildren(this.plot, this.cursor, element("div", { className: "controls" }, label, whole), this.readout);
  }

  summary() {
    const { time, T } = this.video;
    return `Timeline of ${T} frames, ${(time[T - 1] - time[0]).toFixed(1)} seconds; the slider below reads out each frame.`;
  }

  async draw() {
    this.timeline = new Timeline(this.video);
    this.view = await Bokeh.Plotting.show(this.timeline.plot, this.plot);
    this.timeline.range.change.connect(() => this.zoomed());
    this.plot.addEventListener("pointermove", (event) => this.choose(this.rowAt(event), false));
    this.plot.addEventListener("pointerdown", (event) => { this.pressed = event.clientX; }, true);
    this.plot.addEventListener("dblclick", () => this.show(this.video.time[0], this.video.end));
    window.addEventListener("pointerup", (event) => this.released(event), true);
    new ResizeObserver(() => this.zoomed()).observe(this.plot);
    this.zoomed();
    this.choose(0, false);
  }

  zoomed() {
    const { start, end } = this.timeline.range;
    this.zoom = [start, end];
    this.timeline.nameRuns(this.width());
    this.moveCursor();
  }

  released(event) {
    const near = this.pressed !== undefined && Math.abs(event.clientX - this.pressed) < 4;
    this.pressed = undefined;
    if (near) this.choose(this.rowAt(event), true);
  }

  show(from, to) {
    const { range } = this.timeline;
    range.setv({ start: Math.max(from, this.video.time[0]), end: Math.min(to, this.video.end) });
  }

  width() {
    return this.plot.clientWidth - LEFT - RIGHT;
  }

  rowAt(event) {
    const fraction = (event.clientX - this.plot.getBoundingClientRect().left - LEFT) / this.width();
    return rowOf(this.video, this.zoom[0] + Math.min(Math.max(fraction, 0), 1) * (this.zoom[1] - this.zoom[0]));
  }

  // Shows a frame; where the user asked for it, whoever listens goes there too.
  choose(row, asked) {
    this.row = row;
    this.slider.value = row;
    this.moveCursor();
    this.readout.replaceChildren(...readoutOf(this.video, row));
    this.slider.setAttribute("aria-valuetext", this.readout.firstChild.textContent);
    if (asked) this.onSeek(this.video.time[row]);
  }

  moveCursor() {
    if (!this.timeline) return;
    const [from, to] = this.zoom, fraction = (this.video.time[this.row] - from) / (to - from);
    this.cursor.hidden = fraction < 0 || fraction > 1;
    Object.assign(this.cursor.style, { left: `${LEFT + fraction * this.width()}px`, top: "2px", height: `${this.timeline.height - BOTTOM - 4}px` });
  }
}

function labelOf(video, codes, field, row) {
  const { task } = video, code = codes[field * video.T + row];
  if (code === MISSING) return "not annotated";
  return task.steps === task.levels.length ? task.levels[code] : scaled(code, ...task.range).toFixed(2);
}

// A line in words, and a table of the numbers of every branch.
function readoutOf(video, row) {
  const { task } = video, single = task.fields.length === 1;
  const annotated = video.truth.some((code) => code !== MISSING);
  const parts = [`Frame ${thousands(video.frame[row])}`, `${video.time[row].toFixed(2)} s`];
  if (single && annotated) parts.push(`annotated ${labelOf(video, video.truth, 0, row)}`);
  if (single) parts.push(`decided ${labelOf(video, video.decided, 0, row)}`);
  if (video.crop.includes(1) && !video.crop[row]) parts.push("no face crop");
  const columns = [...(single ? [] : [...(annotated ? ["annotated"] : []), "decided"]), ...task.votes.map(({ key }) => key)];
  const head = element("tr", {}, element("td"), ...columns.map((name) => element("th", { scope: "col" }, isolated(name))));
  const rows = task.columns.map((name, column) => {
    const labels = single ? [] : [...(annotated ? [video.truth] : []), video.decided].map((codes) => labelOf(video, codes, column, row));
    const cells = [...labels, ...task.votes.map(({ key }) => numberAt(video, key, column, row))];
    return element("tr", {}, element("th", { scope: "row" }, isolated(name)), ...cells.map((text) => element("td", { textContent: text })));
  });
  return [element("div", { className: "frame", textContent: parts.join(", ") }), element("div", { className: "scroll" }, element("table", {}, head, ...rows))];
}

// The number of a branch at the sampled frame that is nearest.
function numberAt(video, key, column, row) {
  const near = Math.min(Math.round(row / video.step), video.n - 1);
  const value = scaled(video.p[key][column * video.n + near], ...video.task.range);
  return value === null ? "missing" : value.toFixed(2);
}
