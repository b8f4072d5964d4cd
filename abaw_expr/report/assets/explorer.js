// Confusion cells, the stretches behind them, and recordings whose timelines are drawn when they are opened.

const LISTED = 40, MARGIN = 2;

class ExplorerView {
  constructor(root, buffer) {
    this.root = root;
    this.task = pageData.explorers[root.dataset.explorer];
    this.buffer = buffer;
    this.read = new Map();
    this.timelines = new Map();
    root.querySelectorAll(".confusion button").forEach((cell) => cell.addEventListener("click", () => this.filter(cell)));
    root.querySelector(".clear").addEventListener("click", () => this.clear());
    root.querySelectorAll(".recordings details").forEach((details) =>
      details.addEventListener("toggle", () => details.open && this.open(details)));
    root.querySelectorAll(".stretches button").forEach((button) => button.addEventListener("click", () => {
      const place = Number(button.closest("[data-video]").dataset.video);
      this.jump(place, Number(button.dataset.from), Number(button.dataset.to), false);
    }));
    this.tell();
  }

  // A video with its arrays, which are read when they are first asked for.
  video(place) {
    if (!this.read.has(place)) this.read.set(place, readVideo(this.buffer, this.task, this.task.videos[place]));
    return this.read.get(place);
  }

  get videos() {
    return this.task.videos.map((_, place) => this.video(place));
  }

  // Draws the timelines of a recording's videos, once.
  open(details) {
    const places = [...details.querySelectorAll("[data-video]")];
    return Promise.all(places.map((place) => this.timeline(Number(place.dataset.video))));
  }

  timeline(place) {
    if (!this.timelines.has(place)) {
      const view = new TimelineView(this.root.querySelector(`[data-video="${place}"] .timeline`), this.video(place));
      this.timelines.set(place, libraryRead.then(() => view.draw()).then(() => view));
    }
    return this.timelines.get(place);
  }

  // Opens a video's timeline at some seconds of it.
  async jump(place, from, to, scroll = true) {
    const block = this.root.querySelector(`[data-video="${place}"]`);
    block.closest("details").open = true;
    const view = await this.timeline(place);
    view.show(from - MARGIN, to + MARGIN);
    view.choose(rowOf(view.video, from), true);
    if (scroll) block.scrollIntoView({ block: "start" });
    view.slider.focus({ preventScroll: scroll });
  }

  // Shows what is behind a cell of the confusion, or takes the filter away again.
  filter(cell) {
    if (cell.getAttribute("aria-pressed") === "true") return this.clear();
    this.root.querySelectorAll(".confusion button").forEach((other) => other.setAttribute("aria-pressed", other === cell));
    const [field, truth, decided] = ["field", "truth", "decided"].map((name) => Number(cell.dataset[name]));
    const found = this.videos.flatMap((video, place) => stretchesOf(video, field, truth, decided).map((one) => ({ place, video, ...one })));
    found.sort((one, other) => other.frames - one.frames || one.place - other.place);
    const frames = this.videos.map((_, place) => found.reduce((sum, one) => sum + (one.place === place ? one.frames : 0), 0));
    this.list(cell.getAttribute("aria-label"), found);
    this.root.querySelectorAll("[data-recording]").forEach((item) => {
      const count = this.task.recordings[item.dataset.recording].videos.reduce((sum, place) => sum + frames[place], 0);
      item.hidden = !count;
      item.querySelector(".matching").textContent = count ? `${thousands(count)} of this cell` : "";
    });
    this.tell();
  }

  list(title, found) {
    const behind = this.root.querySelector(".behind"), heading = behind.querySelector(".behind-title");
    const more = found.length > LISTED ? `, the ${LISTED} longest of ${thousands(found.length)} stretches` : `, ${counted(found.length, "stretch", "es")}`;
    heading.textContent = title + more;
    behind.querySelector(".behind-list").replaceChildren(...found.slice(0, LISTED).map((one) => {
      const when = `${one.from.toFixed(1)}–${one.to.toFixed(1)} s, ${counted(one.frames, "frame")} from ${thousands(one.first)} in `;
      const button = element("button", { type: "button" }, when, isolated(one.video.name));
      button.addEventListener("click", () => this.jump(one.place, one.from, one.to));
      return element("li", {}, button);
    }));
    behind.hidden = false;
    heading.focus({ preventScroll: true });
  }

  clear() {
    this.root.querySelectorAll(".confusion button").forEach((cell) => cell.setAttribute("aria-pressed", "false"));
    this.root.querySelector(".behind").hidden = true;
    this.root.querySelectorAll("[data-recording]").forEach((item) => {
      item.hidden = false;
      item.querySelector(".matching").textContent = "";
    });
    this.tell();
  }

  // Says how many recordings are listed.
  tell() {
    const items = [...this.root.querySelectorAll("[data-recording]")], shown = items.filter((item) => !item.hidden).length;
    const chosen = !this.root.querySelector(".behind").hidden;
    this.root.querySelector(".shown").textContent = chosen
      ? `${shown} of ${counted(items.length, "recording")} have frames of the chosen cell.` : `${counted(items.length, "recording")}.`;
  }
}

// The stretches of a video in which a field is annotated and decided as levels say.
function stretchesOf(video, field, truth, decided) {
  const { task, T } = video, level = (code) => Math.floor((code * task.levels.length) / task.steps);
  const matches = (i) => {
    const code = video.truth[field * T + i];
    return code !== MISSING && level(code) === truth && level(video.decided[field * T + i]) === decided;
  };
  return runsOf(T, matches).filter(([is]) => is).map(([, start, stop]) => ({
    from: video.time[start], to: timeAfter(video, stop), first: video.frame[start], frames: stop - start,
  }));
}
