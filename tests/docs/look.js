// What is wrong with a page as it stands in the window: a list of sentences. browse.py runs it in both themes and sizes.
async () => {
  const CONTRAST = 4.5; // WCAG 2, success criterion 1.4.3, here for text of every size
  const problems = new Set();
  const shown = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  const short = (text) => JSON.stringify(text.trim().replace(/\s+/g, " ").slice(0, 40));
  const name = (element) => `<${element.localName} class="${element.getAttribute("class") ?? ""}">`;
  const ancestors = function* (element) {
    for (; element; element = element.parentElement) yield element;
  };

  // Widths. What is wider than the screen has to scroll within something that is not.
  const width = document.documentElement.clientWidth;
  const article = document.querySelector("article") ?? document.body;
  const beyond = (element) => element.getBoundingClientRect().right > width + 1;
  const scrolls = (element) =>
    [...ancestors(element.parentElement)].some(
      (each) => article.contains(each) && /auto|scroll/.test(getComputedStyle(each).overflowX) && !beyond(each),
    );
  if (document.documentElement.scrollWidth > width)
    problems.add(`the page is ${document.documentElement.scrollWidth} pixels wide in a window of ${width}`);
  for (const element of article.querySelectorAll("*:not(svg *)"))
    if (shown(element) && beyond(element) && !beyond(element.parentElement) && !scrolls(element))
      problems.add(`${name(element)} is wider than the screen: ${short(element.textContent)}`);

  const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });

  // Images. What a page draws shows the page through, whose theme is not known to it.
  for (const image of document.images) {
    const source = image.getAttribute("src") ?? "";
    image.loading = "eager";
    await image.decode().catch(() => problems.add(`the image ${source} is not there`));
    const alt = image.alt.trim();
    if (!alt || source.endsWith(alt)) problems.add(`the image ${source} has no alt text`);
    if (image.closest(".cell_output") && image.naturalWidth) {
      pen.clearRect(0, 0, 1, 1);
      pen.drawImage(image, 0, 0);
      if (pen.getImageData(0, 0, 1, 1).data[3]) problems.add(`the picture ${source.slice(0, 60)} has a background`);
    }
  }

  // Contrast. Colours as red, green, blue and alpha, whatever notation they are in.
  const known = new Map();
  const rgba = (colour) => {
    if (!known.has(colour)) {
      pen.clearRect(0, 0, 1, 1);
      pen.fillStyle = colour;
      pen.fillRect(0, 0, 1, 1);
      const [red, green, blue, alpha] = pen.getImageData(0, 0, 1, 1).data;
      known.set(colour, [red, green, blue, alpha / 255]);
    }
    return known.get(colour);
  };
  const over = ([r, g, b, alpha], below) => [r, g, b].map((each, i) => each * alpha + below[i] * (1 - alpha));
  const luminance = (colour) => {
    const [red, green, blue] = colour.map((each) =>
      each / 255 <= 0.04045 ? each / 255 / 12.92 : ((each / 255 + 0.055) / 1.055) ** 2.4,
    );
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const contrast = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const background = (element) => {
    const layers = [];
    for (const each of ancestors(element)) {
      layers.push(rgba(getComputedStyle(each).backgroundColor));
      if (layers.at(-1)[3] === 1) break;
    }
    return layers.reduceRight((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const opacity = (element) =>
    [...ancestors(element)].reduce((product, each) => product * getComputedStyle(each).opacity, 1);

  // A text of a drawing stands on the last shape before it that lies below it.
  const behind = (text) => {
    const { x, y, width, height } = text.getBoundingClientRect();
    const contains = (box) =>
      box.left <= x + width / 2 && x + width / 2 <= box.right && box.top <= y + height / 2 && y + height / 2 <= box.bottom;
    const before = [...text.ownerSVGElement.querySelectorAll("rect, circle, path, polygon")].filter(
      (shape) =>
        !shape.closest("defs, clipPath") &&
        shape.compareDocumentPosition(text) & Node.DOCUMENT_POSITION_FOLLOWING &&
        getComputedStyle(shape).fill !== "none" &&
        contains(shape.getBoundingClientRect()),
    );
    const page = background(text.ownerSVGElement);
    return before.reduce((below, shape) => over(rgba(getComputedStyle(shape).fill), below), page);
  };

  const check = (text, element, colour, below) => {
    const [red, green, blue, alpha] = rgba(colour);
    const ratio = contrast(over([red, green, blue, alpha * opacity(element)], below), below);
    if (ratio < CONTRAST)
      problems.add(`contrast ${ratio.toFixed(2)} of ${name(element)}, ${colour} on ${below.map(Math.round)}: ${short(text)}`);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const { parentElement: element, data } = texts.currentNode;
    if (!data.trim() || element.closest("script, style, noscript, template, title, defs") || !shown(element)) continue;
    const drawn = element.closest("svg") ? element.closest("text") : null;
    if (element.closest("svg") && !drawn) continue;
    check(data, element, getComputedStyle(element)[drawn ? "fill" : "color"], drawn ? behind(drawn) : background(element));
  }
  for (const field of document.querySelectorAll("input[placeholder]"))
    if (shown(field)) check(field.placeholder, field, getComputedStyle(field, "::placeholder").color, background(field));

  return [...problems];
}
