"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Light and dark: as the system has it, until the button is used.
  const theme = document.getElementById("theme");
  const isDark = () => (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const name = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  theme.hidden = false;
  theme.addEventListener("click", () => { document.documentElement.dataset.theme = isDark() ? "light" : "dark"; name(); });
  name();

  // Sorting: numbers first by size, then texts; what has no value stays at the end.
  const value = (row, column) => {
    const cell = row.cells[column];
    const text = "value" in cell.dataset ? cell.dataset.value : cell.textContent;
    return text !== "" && !isNaN(text) ? Number(text) : text;
  };
  const compare = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
  const sort = (table, column, direction) => {
    const body = table.tBodies[0];
    const keyed = [...body.rows].map((row) => [value(row, column), row]);
    const known = keyed.filter(([key]) => key !== ""), unknown = keyed.filter(([key]) => key === "");
    known.sort(([a], [b]) => direction * compare(a, b));
    body.append(...[...known, ...unknown].map(([, row]) => row));
    [...table.tHead.rows[0].cells].forEach((head, place) => {
      if (place === column) head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
  };
  for (const table of all("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      const first = head.classList.contains("number") || button.textContent === "kept" ? -1 : 1;
      button.addEventListener("click", () => {
        const now = { ascending: 1, descending: -1 }[head.getAttribute("aria-sort")];
        sort(table, column, now ? -now : first);
      });
    });
  }

  // A module is shown in the grid, the curves and the table at once.
  let lit = [];
  const show = (cell) => {
    for (const one of lit) one.classList.remove("lit");
    lit = [];
    if (cell.matches("td[role=gridcell]")) {
      document.getElementById(cell.closest("table").getAttribute("aria-describedby")).textContent = cell.getAttribute("aria-label");
    }
    if (!cell.dataset.line) return;
    const curve = document.getElementById(cell.dataset.line);
    lit = [...all(`[data-line="${CSS.escape(cell.dataset.line)}"]`), ...(curve ? [curve] : [])];
    for (const one of lit) one.classList.add("lit");
  };
  document.addEventListener("pointerover", (event) => {
    const place = event.target.closest("td[role=gridcell], tr[data-line]");
    if (place) show(place);
  });

  // The grid has one tab stop; arrow keys move in it.
  for (const table of all("table[role=grid]")) {
    const rows = [...table.tBodies[0].rows].map((row) => [...row.cells]);
    const cells = all("td[role=gridcell]", table);
    cells.forEach((cell, place) => { cell.tabIndex = place ? -1 : 0; });
    const visit = (cell) => { for (const one of cells) one.tabIndex = -1; cell.tabIndex = 0; cell.focus(); };
    table.addEventListener("focusin", (event) => { if (event.target.matches("td[role=gridcell]")) show(event.target); });
    table.addEventListener("click", (event) => { const cell = event.target.closest("td[role=gridcell]"); if (cell) visit(cell); });
    table.addEventListener("keydown", (event) => {
      const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] || [0, 0];
      if (!down && !right) return;
      event.preventDefault();
      let row = rows.findIndex((one) => one.includes(event.target));
      let column = event.target.cellIndex;
      do { row += down; column += right; } while (rows[row] && rows[row][column] && !rows[row][column].matches("td[role=gridcell]"));
      if (rows[row] && rows[row][column] && rows[row][column].matches("td[role=gridcell]")) visit(rows[row][column]);
    });
  }

  // One block at a time.
  for (const list of all("[role=tablist]")) {
    const tabs = all("[role=tab]", list);
    const choose = (tab) => {
      for (const one of tabs) {
        one.setAttribute("aria-selected", String(one === tab));
        one.tabIndex = one === tab ? 0 : -1;
        document.getElementById(one.getAttribute("aria-controls")).hidden = one !== tab;
      }
    };
    tabs.forEach((tab, place) => {
      tab.addEventListener("click", () => choose(tab));
      tab.addEventListener("keydown", (event) => {
        const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!move) return;
        const next = tabs[(place + move + tabs.length) % tabs.length];
        choose(next);
        next.focus();
      });
    });
    choose(tabs[0]);
  }

  // Copying; where a browser gives no clipboard, the text is selected for the reader to copy.
  for (const button of all(".copy")) {
    const code = button.parentElement.querySelector("code");
    button.addEventListener("click", async () => {
      let done = "Copied";
      try {
        await navigator.clipboard.writeText(code.textContent);
      } catch {
        getSelection().selectAllChildren(code);
        done = document.execCommand("copy") ? "Copied" : "Selected";
      }
      button.textContent = done;
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }

  // A link to a run opens it.
  const open = () => { const run = location.hash && document.getElementById(location.hash.slice(1)); if (run && "open" in run) run.open = true; };
  addEventListener("hashchange", open);
  open();
})();
