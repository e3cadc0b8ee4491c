// Plots are drawn after the whole page is laid out; otherwise the first ones would take more room than they keep.
const config = {
  responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "",
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
};
const plots = document.querySelectorAll(".plot");
for (const plot of plots) {
  const figure = JSON.parse(plot.textContent);
  plot.replaceChildren();
  Plotly.newPlot(plot, {...figure, config});
}

// Paper is narrower than the screen, and plotly has to be told so before the page is printed. Folded details are opened
// for printing, since nobody can open them on paper.
function resize(size) {
  for (const plot of plots) Plotly.relayout(plot, size(plot.closest(".wide")));
}
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const details of closed) details.open = true;
  resize((wide) => wide ? {width: 680, height: 340} : {width: 330, height: 240});
});
addEventListener("afterprint", () => {
  for (const details of closed) details.open = false;
  resize(() => ({width: null, height: null, autosize: true}));
});

function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

// A table or plot that is wider than the page says so, a table also which columns are out of sight; a button shows them.
for (const box of document.querySelectorAll(".scrollable")) {
  const heads = [...box.querySelectorAll("thead th")];
  const button = make("button", {type: "button", className: "more"});
  box.before(button);
  function update() {
    const seen = box.getBoundingClientRect();
    const names = heads.filter((head) => head.getBoundingClientRect().right > seen.right + 2)
      .map((head) => head.textContent.trim()).filter(Boolean);
    const shown = names.length > 6 ? [...names.slice(0, 5), `${names.length - 5} others`] : names;
    const isMore = heads.length ? names.length > 0 : box.scrollLeft + box.clientWidth < box.scrollWidth - 2;
    box.classList.toggle("more-right", isMore);
    box.classList.toggle("more-left", box.scrollLeft > 2);
    button.hidden = box.scrollWidth <= box.clientWidth + 2;
    const which = shown.length ? `: ${shown.join(", ")}` : "";
    button.textContent = isMore ? `scrolls sideways${which} →` : heads.length ? "← back to the first columns" : "← back";
    button.ariaLabel = !isMore ? "scroll back"
      : names.length ? `scroll to ${names.length} more columns: ${names.join(", ")}` : "scroll to the right";
  }
  button.addEventListener("click", () => {
    const first = heads[0]?.getBoundingClientRect().width ?? 0; // the first column stays in sight
    if (box.classList.contains("more-right")) box.scrollBy({left: box.clientWidth - first - 40, behavior: "smooth"});
    else box.scrollTo({left: 0, behavior: "smooth"});
  });
  box.addEventListener("scroll", update, {passive: true});
  new ResizeObserver(update).observe(box);
}

function textOf(row, column) {
  return row.cells[column].textContent.trim().replaceAll("−", "-");
}

// A cell whose text is no plain number, such as a duration, has its value in data-sort.
function numberOf(row, column) {
  return readNumber(row.cells[column].dataset.sort ?? textOf(row, column));
}

// A radius is written as a fraction: 8/255
function readNumber(text) {
  const [, numerator, denominator] = /^([-+.\de]+)\/([.\d]+)/.exec(text) ?? [];
  return denominator ? numerator / denominator : parseFloat(text);
}

// A click on a column's title sorts by it, a second one the other way, a third one gives the first order back.
function makeSortable(table) {
  const body = table.tBodies[0], first = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const numeric = head.classList.contains("number") || column === 0;
    const orders = head.classList.contains("number") ? ["descending", "ascending"] : ["ascending", "descending"];
    const button = make("button", {type: "button", title: "sort"}, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const order = orders[orders.indexOf(head.ariaSort) + 1];
      for (const other of heads) other.ariaSort = null;
      head.ariaSort = order ?? null;
      body.append(...(order ? sorted(first, column, numeric, order) : first));
    });
  });
}

function sorted(rows, column, numeric, order) {
  const sign = order === "ascending" ? 1 : -1;
  const keyed = rows.map((row) => [numeric ? numberOf(row, column) : textOf(row, column), row]);
  const isMissing = ([key]) => Number.isNaN(key) || key === "–" || key === "";
  const compare = numeric && keyed.some(([key]) => !Number.isNaN(key))
    ? ([a], [b]) => sign * (a - b)
    : ([, a], [, b]) => sign * textOf(a, column).localeCompare(textOf(b, column), undefined, {numeric: true});
  const there = keyed.filter((pair) => !isMissing(pair) || !numeric).sort(compare);
  const missing = numeric ? keyed.filter(isMissing) : []; // last in both orders
  return (there.length ? [...there, ...missing] : missing.sort(compare)).map(([, row]) => row);
}

// Rows stay that have every word, and keep every comparison, as in: completed lambda<0.1
function makeFilterable(table, box) {
  const rows = [...table.tBodies[0].rows];
  const names = [...table.tHead.rows[0].cells].map((head) => head.textContent.trim().toLowerCase().replaceAll(" ", ""));
  const input = make("input", {type: "search", placeholder: "stopped   lambda<0.1   PGDaccuracy>60"});
  const count = make("output");
  box.before(make("label", {className: "filter"}, "Rows with ", input, count));
  input.addEventListener("input", () => {
    const terms = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const tests = terms.map((term) => testOf(term, names));
    for (const row of rows) row.hidden = !tests.every((keeps) => keeps(row));
    const shown = rows.filter((row) => !row.hidden).length;
    count.value = terms.length ? `${shown} of ${rows.length} rows` : "";
  });
}

function testOf(term, names) {
  const [, name, sign, bound] = /^([^<>=]+)([<>]=?|=)(.+)$/.exec(term) ?? [];
  const exact = names.indexOf(name); // h is not "how it ended"
  const column = exact >= 0 ? exact : names.findIndex((other) => other.startsWith(name ?? " "));
  if (column < 0) return (row) => row.textContent.toLowerCase().includes(term);
  const limit = readNumber(bound);
  return (row) => {
    const value = numberOf(row, column);
    if (sign === "=") return Number.isNaN(limit) ? textOf(row, column).toLowerCase().includes(bound) : value === limit;
    return sign.startsWith("<") ? value < limit || (sign === "<=" && value === limit)
      : value > limit || (sign === ">=" && value === limit);
  };
}

const fewRows = 8; // a table of no more needs no filter
for (const table of document.querySelectorAll("table.sortable")) {
  if (table.tBodies[0].rows.length > fewRows) makeFilterable(table, table.closest(".scrollable").previousElementSibling);
  makeSortable(table);
}
