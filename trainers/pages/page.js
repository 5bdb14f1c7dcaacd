"use strict";
// Filter and sort galleries, sort tables. All that it shows is in the page already.
for (const gallery of document.querySelectorAll(".gallery")) {
  const list = gallery.querySelector(".tiles");
  const items = Array.from(list.children, (node, place) => ({
    node, place, groups: JSON.parse(node.dataset.groups), values: JSON.parse(node.dataset.values),
  }));
  const filters = gallery.querySelectorAll("select[data-group]");
  const order = gallery.querySelector(".order");
  const output = gallery.querySelector("output");
  const apply = () => {
    let shown = 0;
    for (const item of items) {
      const fits = (s) => s.value === "" || item.groups[s.dataset.group] === s.value;
      item.node.hidden = !Array.from(filters).every(fits);
      shown += !item.node.hidden;
    }
    const chosen = order ? order.value : "";
    const by = Number(chosen.slice(1)), sign = chosen[0] === "-" ? -1 : 1;
    const compare = (a, b) => {
      const x = a.values[by], y = b.values[by];
      if (chosen === "" || x === y) return a.place - b.place;
      if (x === null || y === null) return x === null ? 1 : -1;
      return sign * (x - y);
    };
    list.append(...items.slice().sort(compare).map((item) => item.node));
    output.textContent = output.dataset.of.replace("{}", shown).replace("{}", items.length);
  };
  gallery.addEventListener("change", apply);
  gallery.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  if (Array.from(gallery.querySelectorAll("select")).some((s) => s.value !== "")) apply(); // kept by a reload
}
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = Array.from(table.tHead.rows[0].cells), body = table.tBodies[0];
  const number = (text) => parseFloat(text.replace(/,/g, "").replace("−", "-"));
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const numeric = head.classList.contains("n");
    const before = head.getAttribute("aria-sort");
    const down = before === null ? numeric : before === "ascending";
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => row.cells[column].textContent;
    const compare = (a, b) => {
      const x = number(key(a)), y = number(key(b));
      if (!numeric) return key(a).localeCompare(key(b), undefined, {numeric: true});
      if (isNaN(x) || isNaN(y)) return isNaN(x) ? (isNaN(y) ? 0 : (down ? -1 : 1)) : (down ? 1 : -1);
      return x - y;
    };
    const rows = Array.from(body.rows).sort((a, b) => (down ? -1 : 1) * compare(a, b));
    body.append(...rows);
  }));
}
