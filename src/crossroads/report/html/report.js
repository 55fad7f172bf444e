"use strict";
(() => {
  const data = JSON.parse(document.getElementById("cells").textContent);
  const table = document.getElementById("matrix");
  const readout = document.getElementById("readout");
  const panel = document.getElementById("cell");
  document.documentElement.classList.add("js");

  // The confusion matrix. Rows and cells keep their elements; an order only moves them.
  const head = table.tHead.rows[0];
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const names = data.classes;
  const labels = data.labels;
  const cells = rows.map((row) => [...row.cells].slice(1));
  const heads = [...head.cells].slice(1);
  const place = new Map();
  cells.forEach((row, i) => row.forEach((cell, j) => place.set(cell, [i, j])));
  const count = (i, j) => Number(cells[i][j].textContent || 0);
  const images = rows.map((row) => Number(row.dataset.images));
  const errors = rows.map((row) => Number(row.dataset.errors));
  let order = names.map((_, i) => i);
  let current = null;

  function arrange() {
    const by = document.getElementById("order").value;
    const filter = document.getElementById("shown")?.value ?? "all";
    const key = { name: (i) => i, errors: (i) => -errors[i], images: (i) => -images[i] }[by];
    const all = names.map((_, i) => i).sort((a, b) => key(a) - key(b) || a - b);
    const wrong = [...all].sort((a, b) => errors[b] - errors[a]).filter((i) => errors[i]);
    const kept = filter === "all" ? all : filter === "errors" ? wrong : wrong.slice(0, Number(filter));
    const shown = new Set(kept.length ? kept : all);
    order = all.filter((i) => shown.has(i));
    head.append(...all.map((i) => heads[i]));
    heads.forEach((cell, i) => (cell.hidden = !shown.has(i)));
    body.remove();
    for (const i of all) {
      rows[i].append(...all.map((j) => cells[i][j]));
      rows[i].hidden = !shown.has(i);
      cells[i].forEach((cell, j) => (cell.hidden = !shown.has(j)));
      body.append(rows[i]);
    }
    table.append(body);
  }

  function describe(i, j) {
    const n = count(i, j);
    const part = images[i] ? Math.round((100 * n) / images[i]) : 0;
    const noun = n === 1 ? "image" : "images";
    if (!n && i !== j) return `No image of ${names[i]} is taken for ${names[j]}`;
    return i === j
      ? `${n} of ${images[i]} images of ${names[i]} are classified correctly (${part} %)`
      : `${n} ${noun} of ${names[i]} taken for ${names[j]} (${part} % of ${names[i]})`;
  }

  function mark(i, j) {
    table.querySelectorAll(".marked").forEach((cell) => cell.classList.remove("marked"));
    rows[i].cells[0].classList.add("marked");
    heads[j].classList.add("marked");
    readout.textContent = describe(i, j);
  }

  function make(name, text, className) {
    const node = document.createElement(name);
    if (text) node.textContent = text;
    if (className) node.className = className;
    return node;
  }

  function show(i, j) {
    const found = data.cells[`${labels[i]},${labels[j]}`] || [];
    const list = make("ul", "", "gallery");
    for (const [name, confidence, picture] of found) {
      const item = make("li");
      const figure = make("figure");
      if (picture) {
        const box = make("div", "", "picture");
        const img = make("img");
        img.src = picture.startsWith("#") ? document.querySelector(picture).src : picture;
        img.alt = `${names[i]}, predicted as ${names[j]}`;
        box.append(img);
        figure.append(box);
      }
      const caption = make("figcaption");
      const line = make("p", name.split("/").pop(), "name");
      line.title = name;
      caption.append(make("p", `${confidence} %`, "quiet"), line);
      figure.append(caption);
      item.append(figure);
      list.append(item);
    }
    const n = count(i, j);
    const more = n > found.length ? `The ${found.length} most confident of ${n} are shown.` : "";
    panel.replaceChildren(make("h3", describe(i, j)), make("p", found.length ? more : "No images are kept for this cell.", "caption"), list);
    panel.hidden = false;
    cells.flat().forEach((cell) => cell.classList.remove("open"));
    cells[i][j].classList.add("open");
  }

  function focusOn(cell) {
    if (current) current.tabIndex = -1;
    current = cell;
    cell.tabIndex = 0;
    cell.focus();
  }

  function openable(target) {
    const cell = target.closest("td");
    return cell && place.has(cell) && cell.textContent ? place.get(cell) : null;
  }

  table.addEventListener("pointerover", (event) => {
    const cell = event.target.closest("td");
    if (cell && place.has(cell)) mark(...place.get(cell));
  });
  table.addEventListener("focusin", (event) => {
    const cell = event.target.closest("td");
    if (cell && place.has(cell)) mark(...place.get(cell));
  });
  table.addEventListener("click", (event) => {
    const at = openable(event.target);
    if (at) {
      focusOn(cells[at[0]][at[1]]);
      show(...at);
    }
  });
  const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  table.addEventListener("keydown", (event) => {
    const cell = event.target.closest("td");
    if (!cell || !place.has(cell)) return;
    const [i, j] = place.get(cell);
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      if (count(i, j)) show(i, j);
    } else if (event.key in moves) {
      event.preventDefault();
      const limit = (value) => Math.min(order.length - 1, Math.max(0, value));
      const row = order[limit(order.indexOf(i) + moves[event.key][0])];
      const column = order[limit(order.indexOf(j) + moves[event.key][1])];
      focusOn(cells[row][column]);
    }
  });
  document.querySelectorAll("#order, #shown").forEach((control) => control.addEventListener("change", arrange));
  document.querySelectorAll("[data-cell]").forEach((button) =>
    button.addEventListener("click", () => {
      const [i, j] = button.dataset.cell.split(",").map((label) => labels.indexOf(Number(label)));
      mark(i, j);
      show(i, j);
      panel.scrollIntoView({ block: "nearest" });
    })
  );
  current = cells[0][0];
  current.tabIndex = 0;
  arrange();

  // Tables that are sorted by a click on a column.
  document.querySelectorAll("table[data-sort]").forEach((sortable) => {
    const buttons = [...sortable.tHead.querySelectorAll("button")];
    const value = (row, column) => {
      const cell = row.cells[Math.min(column, row.cells.length - 1)];
      const text = cell.dataset.value ?? cell.textContent;
      return text !== "" && !Number.isNaN(Number(text)) ? Number(text) : text;
    };
    buttons.forEach((button, column) =>
      button.addEventListener("click", () => {
        const header = button.closest("th");
        const descending = header.ariaSort === "ascending";
        buttons.forEach((each) => (each.closest("th").ariaSort = null));
        header.ariaSort = descending ? "descending" : "ascending";
        const compare = (a, b) => {
          const [x, y] = [value(a, column), value(b, column)];
          const less = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), undefined, { numeric: true });
          return descending ? -less : less;
        };
        sortable.tBodies[0].append(...[...sortable.tBodies[0].rows].sort(compare));
      })
    );
  });
})();
