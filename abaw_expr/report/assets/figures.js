// Static plots: each is drawn when it comes near the window, and all of them before printing.

function drawFigure(place) {
  if (place.dataset.drawn) return;
  place.dataset.drawn = "yes";
  Bokeh.embed.embed_item(pageData.figures[place.dataset.figure], place);
}

libraryRead.then(() => {
  const places = document.querySelectorAll("[data-figure]");
  const watch = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => drawFigure(entry.target)),
    { rootMargin: "300px" },
  );
  places.forEach((place) => watch.observe(place));
  window.addEventListener("beforeprint", () => places.forEach(drawFigure));
});
