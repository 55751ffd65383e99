"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = Array.from(table.tHead.rows[0].cells);
  const order = new Intl.Collator("en", {numeric: true}).compare;
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const value = row => row.cells[column].dataset.value;
      const numbers = Array.from(table.tBodies[0].rows).every(row => !isNaN(value(row)));
      const rows = Array.from(table.tBodies[0].rows).sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === "" || y === "") return (x === "") - (y === "");
        return sign * (numbers ? x - y : order(x, y));
      });
      table.tBodies[0].append(...rows);
    });
  });
}
