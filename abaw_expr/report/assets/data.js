// What the page holds: JSON, arrays that are decompressed once, and the plotting library.

const pageData = JSON.parse(document.getElementById("page-data").textContent);
const ARRAYS = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array };
const MISSING = 255;

// The bytes of an element that holds base64 of gzip; the element's text is let go.
async function decompress(id) {
  const element = document.getElementById(id);
  const text = atob(element.textContent);
  element.remove();
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

const arraysRead = decompress("page-arrays");

// The library runs as a script whose hash the page's policy names.
const libraryRead = decompress("page-library").then((buffer) => {
  const script = document.createElement("script");
  script.textContent = new TextDecoder().decode(buffer);
  document.head.append(script);
});

function arrayOf(buffer, [type, offset, length]) {
  return new ARRAYS[type](buffer, offset, length);
}

// An element with text as text: names are never read as markup.
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function isolated(text) {
  return element("bdi", { textContent: text });
}

// A name where there is little room: Bokeh draws it, and never reads it as markup.
function short(text, longest = 14) {
  return text.length > longest ? `${text.slice(0, longest - 1)}…` : text;
}

function thousands(count) {
  return count.toLocaleString("en-US");
}

function counted(count, what, ending = "s") {
  return `${thousands(count)} ${what}${count === 1 ? "" : ending}`;
}
