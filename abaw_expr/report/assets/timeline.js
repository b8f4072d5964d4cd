// The timeline of a video as one plot: panels below each other, in pixels from the top, over the same time.

const LEFT = 104, RIGHT = 14, BOTTOM = 46, TITLE = 18, GAP = 8, COLUMNS = 1200;
const INK = "#1a1a1a", ABSENT = "#bdbdbd";

// A panel from `top` to `top - height`; rows are its parts of equal height, from the top.
class Panel {
  constructor(timeline, title, height, top) {
    Object.assign(this, { timeline, plot: timeline.plot, video: timeline.video, height, top: top - TITLE });
    this.bottom = this.top - height;
    this.plot.add_layout(new Bokeh.Label({ x: 0, x_units: "screen", y: this.top + 1, text: title, text_font_size: "11.5px", text_font: FONT, text_color: "#333333" }));
    this.back = { level: "underlay", fill_color: "#f4f4f4", line_color: null };
    this.plot.quad({ left: [this.video.time[0]], right: [this.video.end], top: [this.top], bottom: [this.bottom], ...this.back });
  }

  // A row from its number to its upper and lower end.
  row(number, rows) {
    const one = this.height / rows;
    return [this.top - number * one, this.top - (number + 1) * one];
  }

  named(names) {
    names.forEach((name, number) => {
      const [top, bottom] = this.row(number, names.length);
      this.timeline.ticks.set((top + bottom) / 2, short(name));
    });
  }

  scale(low, high, ticks) {
    ticks.forEach((value) => this.timeline.ticks.set(this.at(value, low, high), String(value)));
  }

  at(value, low, high) {
    return this.bottom + ((value - low) / (high - low)) * this.height;
  }

  // Bars of runs [value, first, after] in a row.
  bars(runs, [top, bottom], style) {
    const { time } = this.video;
    this.plot.quad({
      left: runs.map(([, start]) => time[start]), right: runs.map(([, , stop]) => timeAfter(this.video, stop)),
      top: runs.map(() => top), bottom: runs.map(() => bottom), line_color: INK, line_width: 0.5, ...style,
    });
  }

  line(values, low, high, style) {
    this.plot.line({ x: sampledTimes(this.video), y: Array.from(values, (value) => (value === null ? NaN : this.at(value, low, high))), ...style });
  }
}

const FONT = "system-ui, sans-serif";

function bandPanel(panel, { source }) {
  const { levels, colours, patterns } = panel.video.task, codes = panel.video[source];
  const runs = runsOf(panel.video.T, (i) => codes[i]), place = panel.row(0, 1);
  levels.forEach((level, number) => {
    const own = runs.filter(([code]) => code === number);
    const hatch = { hatch_pattern: patterns[number] || " ", hatch_color: INK, hatch_alpha: 0.35, hatch_scale: 9, hatch_weight: 0.8 };
    if (own.length) panel.bars(own, place, { fill_color: colours[number], ...hatch });
  });
  panel.timeline.words.push({ runs: runs.filter(([code]) => code !== MISSING), y: (place[0] + place[1]) / 2, levels });
}

// An image of rows over time, white to dark; grey where there is none.
function heatPanel(panel, { source }) {
  const { video } = panel, { task, n, T, step } = video, labelled = source === "truth" || source === "decided";
  const rows = labelled ? task.fields : task.columns, codes = labelled ? video[source] : video.p[source];
  const top = labelled ? task.steps - 1 : MISSING - 1, pixels = new Float32Array(rows.length * COLUMNS);
  for (let column = 0; column < COLUMNS; column++) {
    const row = rowOf(video, video.time[0] + ((column + 0.5) / COLUMNS) * (video.end - video.time[0]));
    for (let r = 0; r < rows.length; r++) {
      const code = labelled ? codes[r * T + row] : codes[r * n + Math.min(Math.round(row / step), n - 1)];
      pixels[(rows.length - 1 - r) * COLUMNS + column] = code === MISSING ? NaN : code / top;
    }
  }
  const { ndarray } = Bokeh.require("core/util/ndarray");
  panel.plot.image({
    image: [ndarray(pixels, { dtype: "float32", shape: [rows.length, COLUMNS] })],
    x: [video.time[0]], y: [panel.bottom], dw: [video.end - video.time[0]], dh: [panel.height],
    color_mapper: new Bokeh.LinearColorMapper({ palette: HEAT, low: 0, high: 1, nan_color: ABSENT }),
  });
  panel.named(rows);
}

const HEAT = Array.from({ length: 64 }, (_, i) => {
  const part = i / 63, mixed = [[255, 8], [255, 48], [255, 107]].map(([from, to]) => Math.round(from + part * (to - from)));
  return `#${mixed.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
});

function linesPanel(panel, { field }) {
  const { video } = panel, { task, n, T, step } = video, [low, high] = task.range;
  const truth = Array.from({ length: n }, (_, j) => scaled(video.truth[field * T + j * step], low, high));
  panel.scale(low, high, [low, (low + high) / 2, high]);
  panel.line(truth, low, high, { line_color: task.truth_colour, line_width: 5, line_alpha: 0.6 });
  task.votes.slice().reverse().forEach(({ key, colour, dash }) => {
    const values = Array.from({ length: n }, (_, j) => scaled(video.p[key][field * n + j], low, high));
    panel.line(values, low, high, { line_color: colour, line_dash: dash, line_width: key === "fused" ? 2.2 : 1.3 });
  });
}

function wrongPanel(panel) {
  const { video } = panel, fields = video.task.fields.length;
  const wrong = (i) => {
    for (let f = 0; f < fields; f++) {
      const truth = video.truth[f * video.T + i];
      if (truth !== MISSING && truth !== video.decided[f * video.T + i]) return true;
    }
    return false;
  };
  panel.bars(runsOf(video.T, wrong).filter(([is]) => is), panel.row(0, 1), { fill_color: INK });
}

// What is not there: each branch, and the crop of the face where any is known.
function missingRows(video) {
  const names = Object.keys(video.p).filter((key) => key !== "fused");
  const rows = names.map((name, k) => [name, (i) => video.has[k * video.T + i] === 1]);
  return video.crop.includes(1) ? [...rows, ["face crop", (i) => video.crop[i] === 1]] : rows;
}

function missingPanel(panel, { rows }) {
  panel.named(rows.map(([name]) => name));
  rows.forEach(([, has], number) => {
    const style = { fill_color: ABSENT, hatch_pattern: "x", hatch_color: INK, hatch_alpha: 0.6, hatch_scale: 7, hatch_weight: 0.6 };
    panel.bars(runsOf(panel.video.T, has).filter(([is]) => !is), panel.row(number, rows.length), style);
  });
}

function levelPanel(panel) {
  const { video } = panel, { quietest } = video.task;
  panel.scale(quietest, 0, [quietest, quietest / 2, 0]);
  panel.line(Array.from(video.audio.level, (code) => scaled(code, quietest, 0)), quietest, 0, { line_color: INK, line_width: 1 });
}

function voicePanel(panel) {
  const values = Array.from(panel.video.audio.voice, (code) => scaled(code, 0, 1) ?? 0);
  panel.scale(0, 1, [0, 1]);
  const upper = values.map((value) => panel.at(value, 0, 1));
  panel.plot.varea({ x: sampledTimes(panel.video), y1: upper.map(() => panel.bottom), y2: upper, fill_color: "#56b4e9", fill_alpha: 0.7 });
  panel.line(values, 0, 1, { line_color: INK, line_width: 0.7 });
}

const DRAW = { band: bandPanel, heat: heatPanel, lines: linesPanel, wrong: wrongPanel, missing: missingPanel, level: levelPanel, voice: voicePanel };

// The panels of a video from top to bottom.
function panelsOf(video) {
  const { task } = video, labels = ["truth", "decided"], annotated = video.truth.some((code) => code !== MISSING);
  const own = task.panels.filter(({ source }) => annotated || source !== "truth").map((panel) =>
    panel.form === "heat" && !labels.includes(panel.source) ? { ...panel, title: `${panel.title}: probability, dark is high` } : panel);
  if (annotated && task.steps === task.levels.length) {
    const after = own.findLastIndex(({ source }) => labels.includes(source)) + 1;
    own.splice(after, 0, { title: "wrong frames", form: "wrong", height: 12 });
  }
  const rows = missingRows(video);
  own.push({ title: "missing modality, hatched", form: "missing", height: 16 * rows.length, rows });
  if (video.audio) {
    own.push({ title: "audio level, dB below its loudest", form: "level", height: 54 });
    own.push({ title: "voice activity, probability", form: "voice", height: 34 });
  }
  return own;
}

// The plot of a video, not yet in the page.
class Timeline {
  constructor(video) {
    const panels = panelsOf(video), inner = panels.reduce((sum, { height }) => sum + height + TITLE + GAP, 0);
    Object.assign(this, { video, ticks: new Map(), words: [] });
    this.range = new Bokeh.Range1d({ start: video.time[0], end: video.end });
    this.height = inner + BOTTOM + 4;
    this.plot = Bokeh.Plotting.figure({
      height: this.height, sizing_mode: "stretch_width", tools: "", toolbar_location: null, x_axis_label: "time, s",
      x_range: this.range, y_range: new Bokeh.Range1d({ start: -inner, end: 0 }),
      min_border_left: LEFT, min_border_right: RIGHT, min_border_top: 2, min_border_bottom: BOTTOM,
    });
    let top = 0;
    for (const panel of panels) {
      DRAW[panel.form](new Panel(this, panel.title, panel.height, top), panel);
      top -= TITLE + panel.height + GAP;
    }
    this.label();
    this.plot.add_tools(new Bokeh.BoxZoomTool({ dimensions: "width" }));
  }

  // Ticks of all panels, and the words in bands.
  label() {
    const [x] = this.plot.xaxis, [y] = this.plot.yaxis;
    y.ticker = new Bokeh.FixedTicker({ ticks: [...this.ticks.keys()] });
    y.major_label_overrides = this.ticks;
    for (const axis of [x, y]) Object.assign(axis, { major_label_text_font_size: "11px", major_label_text_font: FONT, axis_label_text_font: FONT, axis_label_text_font_style: "normal", minor_tick_line_color: null, axis_line_color: null });
    y.major_tick_line_color = null;
    for (const grid of [...this.plot.xgrid, ...this.plot.ygrid]) grid.visible = false;
    this.plot.outline_line_color = null;
    this.named = new Bokeh.ColumnDataSource({ data: { x: [], y: [], text: [] } });
    const font = { text_font: FONT, text_font_size: "11px", text_align: "center", text_baseline: "middle", text_color: "#000000" };
    this.plot.text({ field: "x" }, { field: "y" }, { field: "text" }, { source: this.named, ...font, background_fill_color: "#ffffff", background_fill_alpha: 0.75 });
  }

  // Names the runs that are wide enough on the screen.
  nameRuns(width) {
    const { start, end } = this.range, data = { x: [], y: [], text: [] };
    for (const { runs, y, levels } of this.words) {
      for (const [code, first, after] of runs) {
        const from = Math.max(this.video.time[first], start), to = Math.min(timeAfter(this.video, after), end);
        const text = short(levels[code], 12);
        if (((to - from) / (end - start)) * width < 6.5 * text.length + 6) continue;
        data.x.push((from + to) / 2); data.y.push(y); data.text.push(text);
      }
    }
    this.named.data = data;
  }
}
