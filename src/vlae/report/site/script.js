"use strict";
// Without this script everything stands on one long page; it shows one page at a time, sorts, and
// enlarges images.
{
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const make = (name, properties, ...children) => {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  };

  // Pages: an address is #/NAME, the id of a page or of something on it.
  const start = document.getElementById("/");
  const named = document.title;
  let shown = null;
  const show = () => {
    const found = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const target = found && found.closest(".page") ? found : start;
    const page = target.closest(".page");
    if (document.getElementById("look").open) document.getElementById("look").close();
    for (const one of all(".page")) one.classList.toggle("now", one === page);
    document.title = page === start ? named : `${page.dataset.title} · ${named}`;
    const places = [target, page].map((one) => one.id).concat(page.dataset.in || []);
    for (const link of all(".bar nav a")) {
      const here = places.includes(link.hash.slice(1)) && !(page === start && target === start);
      link.toggleAttribute("aria-current", here);
      if (here) link.setAttribute("aria-current", "page");
    }
    if (history.state && "y" in history.state) scrollTo(0, history.state.y);
    else if (target === page) scrollTo(0, 0);
    else target.scrollIntoView();
    if (shown && shown !== page) page.querySelector("h1").focus({ preventScroll: true });
    shown = page;
  };
  history.scrollRestoration = "manual"; // the page that Back leads to has another height
  let waiting = 0;
  addEventListener("scroll", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => history.replaceState({ y: scrollY }, ""), 120);
  });
  addEventListener("hashchange", () => {
    clearTimeout(waiting);
    show();
  });
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById("main").focus();
  });
  show();

  // Tables: each heading becomes a button; rows are sorted within their group.
  const number = (value) => (value === undefined ? NaN : Number(value));
  const bySize = (x, y, sign) =>
    isNaN(x) || isNaN(y) ? isNaN(x) - isNaN(y) : sign * (x - y); // what has no value is last
  const compare = (column, sign, numbers) => (a, b) => {
    const [one, other] = [a.cells[column], b.cells[column]];
    if (!numbers) {
      const [x, y] = [one.textContent.trim(), other.textContent.trim()];
      if (!x || !y) return (x ? 0 : 1) - (y ? 0 : 1);
      return sign * x.localeCompare(y, "en", { numeric: true });
    }
    return bySize(number(one.dataset.value), number(other.dataset.value), sign);
  };
  for (const table of all("table.sortable")) {
    const headings = all("thead th", table);
    const before = new Map(all("tbody tr", table).map((row, place) => [row, place]));
    headings.forEach((heading, column) => {
      const button = make("button", { type: "button" }, ...heading.childNodes);
      heading.append(button);
      heading.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const was = heading.getAttribute("aria-sort");
        const next = { none: "ascending", ascending: "descending", descending: "none" }[was];
        for (const other of headings) other.setAttribute("aria-sort", "none");
        heading.setAttribute("aria-sort", next);
        const by =
          next === "none"
            ? (a, b) => before.get(a) - before.get(b)
            : compare(column, next === "ascending" ? 1 : -1, heading.classList.contains("number"));
        for (const body of table.tBodies) {
          const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
          body.append(...rows.sort(by));
        }
      });
    });
  }

  // Figures: as wide as the page, or in full size.
  for (const sheet of all(".sheet")) {
    const button = make("button", { type: "button", className: "zoom" }, "Full size");
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(sheet.classList.toggle("full")));
    });
    sheet.after(button);
  }

  // Test images: sorted by any value, marked in the histogram, enlarged.
  const look = document.getElementById("look");
  const fields = { index: "Place in the test set", nll: "NLL", kl: "KL", ess: "Effective samples", khat: "Pareto k̂" };
  const mark = (plot, value) => {
    const { low, high, left, right } = plot.dataset;
    const x = Number(left) + ((value - low) / (high - low)) * (right - left);
    const line = plot.querySelector(".mark");
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
    line.classList.add("seen");
  };
  let card = null;
  const enlarge = (next) => {
    card = next;
    const { unit } = card.closest(".explorer").dataset;
    document.getElementById("look-title").textContent = `Test image ${card.dataset.index}`;
    look.className = card.closest(".page").className.replace(/\b(page|now)\b/g, "");
    look.querySelector(".pair").replaceChildren(...all(".cell", card).map((one) => one.cloneNode()));
    const values = Object.entries(fields).filter(([key]) => key !== "index" && card.dataset[key]);
    const units = { nll: unit, kl: "nats" };
    look.querySelector("dl").replaceChildren(
      ...[...values, ["below", "Test images with a lower NLL"]].map(([key, name]) =>
        make(
          "div",
          {},
          make("dt", {}, name),
          make("dd", {}, card.dataset[key], make("small", {}, ` ${key === "below" ? "%" : units[key] || ""}`)),
        ),
      ),
    );
    const plot = card.closest(".page").querySelector(".histogram .plot").cloneNode(true);
    mark(plot, Number(card.dataset.nll));
    look.querySelector(".place").replaceChildren(plot);
    for (const button of all("[data-step]", look)) button.disabled = !neighbour(button.dataset.step);
  };
  const neighbour = (step) => (Number(step) < 0 ? card.previousElementSibling : card.nextElementSibling);
  const go = (step) => neighbour(step) && enlarge(neighbour(step));
  for (const button of all("[data-step]", look)) button.addEventListener("click", () => go(button.dataset.step));
  look.querySelector(".close").addEventListener("click", () => look.close());
  look.addEventListener("click", (event) => event.target === look && look.close());
  look.addEventListener("close", () => card && card.firstElementChild.focus());
  look.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) go(step);
  });
  for (const explorer of all(".explorer")) {
    const list = explorer.querySelector("ul");
    const cards = [...list.children];
    const plot = explorer.closest(".page").querySelector(".histogram .plot");
    for (const one of cards) {
      const point = () => mark(plot, Number(one.dataset.nll));
      one.addEventListener("mouseenter", point);
      one.firstElementChild.addEventListener("focus", point);
      one.firstElementChild.addEventListener("click", () => {
        enlarge(one);
        look.showModal();
      });
    }
    const bar = make("div", { className: "sorts" }, "Sort by");
    bar.setAttribute("role", "group");
    bar.setAttribute("aria-label", "Order of the test images");
    const differ = (key) => new Set(cards.map((one) => one.dataset[key])).size > 1;
    for (const [key, name] of Object.entries(fields).filter(([key]) => differ(key))) {
      const button = make("button", { type: "button" }, name);
      button.dataset.key = key;
      button.setAttribute("aria-pressed", String(key === "index"));
      button.addEventListener("click", () => {
        const up = button.getAttribute("aria-pressed") !== "true" || button.dataset.order === "descending";
        for (const other of all("button", bar)) {
          other.setAttribute("aria-pressed", String(other === button));
          other.textContent = fields[other.dataset.key];
          delete other.dataset.order;
        }
        button.dataset.order = up ? "ascending" : "descending";
        button.textContent = `${name} ${up ? "↑" : "↓"}`;
        const value = (one) => number(one.dataset[key]);
        list.append(...cards.sort((a, b) => bySize(value(a), value(b), up ? 1 : -1)));
      });
      bar.append(button);
    }
    explorer.prepend(bar);
  }
}
