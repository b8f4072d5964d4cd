// Brings the page to life: data first, then what is drawn with the library.

const brought = arraysRead.then((buffer) => {
  document.querySelectorAll("[data-explorer]").forEach((root) => new ExplorerView(root, buffer));
  return [...document.querySelectorAll("[data-player]")].map((root) => new PlayerView(root, buffer));
});

Promise.all([brought, libraryRead]).then(([players]) => Promise.all(players.map(({ view }) => view.draw()))).then(() => {
  document.documentElement.dataset.state = "ready";
});
