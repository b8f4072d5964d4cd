// A video beside its timeline: a click, the slider and the keys seek, and the video moves the cursor.

class PlayerView {
  constructor(root, buffer) {
    const task = pageData.players[root.dataset.player];
    this.film = root.querySelector("video");
    this.view = new TimelineView(root.querySelector(".timeline"), readVideo(buffer, task, task.video));
    this.view.onSeek = (time) => { this.film.currentTime = time; };
    this.film.addEventListener("timeupdate", () => this.follow());
    this.film.addEventListener("play", () => this.step());
    const tell = () => { root.querySelector(".unplayable").hidden = false; };
    root.querySelector("source:last-of-type").addEventListener("error", tell);
    if (this.film.networkState === HTMLMediaElement.NETWORK_NO_SOURCE) tell(); // before this page listened
  }

  follow() {
    const row = rowOf(this.view.video, this.film.currentTime + 1e-3);
    if (row !== this.view.row) this.view.choose(row, false);
  }

  // While it plays, the cursor moves with every picture of the screen.
  step() {
    if (this.film.paused || this.film.ended) return;
    this.follow();
    requestAnimationFrame(() => this.step());
  }
}
