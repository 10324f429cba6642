"use strict";
document.documentElement.classList.add("js");

// Crystals: spheres, bonds and cell edges sorted by depth, in perspective. Angstrom, cell centre at the origin.
(function () {
  const data = JSON.parse(document.getElementById("scenes").textContent);
  const views = [];
  let bonds = true, spinning = false;

  const times = (a, b) => a.map((row) => b[0].map((_, j) => row.reduce((s, v, k) => s + v * b[k][j], 0)));
  const aboutX = (t) => [[1, 0, 0], [0, Math.cos(t), -Math.sin(t)], [0, Math.sin(t), Math.cos(t)]];
  const aboutY = (t) => [[Math.cos(t), 0, Math.sin(t)], [0, 1, 0], [-Math.sin(t), 0, Math.cos(t)]];
  const upright = [[1, 0, 0], [0, 0, 1], [0, -1, 0]]; // c points up, a to the right

  const between = (a, b, t) => [0, 1, 2].map((k) => a[k] + t * (b[k] - a[k]));

  // Short pieces of a line that lie in no atom: short, so that each has one depth.
  function pieces(a, b, count, atoms) {
    const out = [];
    for (let i = 0; i < count; i++) {
      const p = between(a, b, i / count), q = between(a, b, (i + 1) / count), middle = between(p, q, 0.5);
      const hidden = atoms.some((o) => Math.hypot(o[0] - middle[0], o[1] - middle[1], o[2] - middle[2]) < 0.97 * data.elements[o[3]].radius);
      if (!hidden) out.push([p, q]);
    }
    return out;
  }

  function draw(view) {
    const { canvas, crystal, rotation } = view;
    const width = canvas.clientWidth;
    if (!width) return;
    const dense = Math.min(window.devicePixelRatio || 1, 3);
    const size = Math.round(width * dense);
    if (canvas.width !== size) canvas.width = canvas.height = size;
    const g = canvas.getContext("2d");
    g.clearRect(0, 0, size, size);
    const eye = 4.5 * crystal.extent, scale = 0.47 * size / crystal.extent;
    const project = (p) => {
      const [x, y, z] = rotation.map((row) => row[0] * p[0] + row[1] * p[1] + row[2] * p[2]);
      const near = eye / (eye - z);
      return { x: size / 2 + scale * near * x, y: size / 2 - scale * near * y, z: z, s: scale * near };
    };
    const items = [];
    const stroke = (a, b, widthOf, colour) => {
      const p = project(a), q = project(b);
      items.push({ z: (p.z + q.z) / 2, p, q, widthOf, colour });
    };
    view.edges.forEach(([a, b]) => stroke(a, b, () => Math.max(1, 1.2 * dense), "#8d949e"));
    if (bonds) view.bonds.forEach(([a, b, z]) => stroke(a, b, (s) => 0.17 * s, data.elements[z].dark));
    crystal.atoms.forEach((atom) => { const p = project(atom); items.push({ z: p.z, p, element: data.elements[atom[3]] }); });
    items.sort((a, b) => a.z - b.z);
    g.lineCap = "round";
    for (const item of items) {
      if (item.element) {
        const r = item.element.radius * item.p.s;
        const shade = g.createRadialGradient(item.p.x - 0.35 * r, item.p.y - 0.4 * r, 0.05 * r, item.p.x, item.p.y, r);
        shade.addColorStop(0, item.element.light);
        shade.addColorStop(0.35, item.element.colour);
        shade.addColorStop(1, item.element.dark);
        g.fillStyle = shade;
        g.beginPath();
        g.arc(item.p.x, item.p.y, r, 0, 2 * Math.PI);
        g.fill();
      } else {
        g.strokeStyle = item.colour;
        g.lineWidth = item.widthOf(item.p.s);
        g.beginPath();
        g.moveTo(item.p.x, item.p.y);
        g.lineTo(item.q.x, item.q.y);
        g.stroke();
      }
    }
  }

  function turn(view, dx, dy) {
    view.rotation = times(times(aboutX(dy), aboutY(dx)), view.rotation);
    draw(view);
  }

  document.querySelectorAll("canvas[data-crystal]").forEach((canvas) => {
    const crystal = data.crystals[Number(canvas.dataset.crystal)];
    const halves = crystal.bonds.flatMap(([i, j]) => {
      const a = crystal.atoms[i], b = crystal.atoms[j], middle = between(a, b, 0.5);
      return [[a, middle, a[3], [a]], [b, middle, b[3], [b]]];
    });
    const view = {
      canvas, crystal,
      edges: crystal.edges.flatMap(([a, b]) => pieces(a, b, 24, crystal.atoms)),
      bonds: halves.flatMap(([a, b, z, own]) => pieces(a, b, 8, own).map(([p, q]) => [p, q, z])),
      rotation: times(times(aboutX(0.28), aboutY(-0.49)), upright),
    };
    views.push(view);
    let last = null;
    canvas.addEventListener("pointerdown", (e) => { last = [e.clientX, e.clientY]; canvas.setPointerCapture(e.pointerId); });
    canvas.addEventListener("pointermove", (e) => {
      if (!last) return;
      turn(view, (e.clientX - last[0]) * 0.012, (e.clientY - last[1]) * 0.012);
      last = [e.clientX, e.clientY];
    });
    ["pointerup", "pointercancel"].forEach((name) => canvas.addEventListener(name, () => { last = null; }));
    canvas.addEventListener("keydown", (e) => {
      const step = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] }[e.key];
      if (step) { turn(view, step[0], step[1]); e.preventDefault(); }
    });
  });

  const drawAll = () => views.forEach(draw);
  drawAll();
  window.addEventListener("resize", drawAll);
  window.addEventListener("beforeprint", drawAll);
  const on = (id, event, action) => { const e = document.getElementById(id); if (e) e.addEventListener(event, () => action(e)); };
  on("bonds", "change", (box) => { bonds = box.checked; drawAll(); });
  const unfold = (card, open) => {
    card.classList.toggle("open", open);
    const button = card.querySelector("button.open");
    button.setAttribute("aria-expanded", String(open));
    button.textContent = open ? "less" : "more";
  };
  const allCards = Array.from(document.querySelectorAll(".card"));
  allCards.forEach((card) => card.querySelector("button.open").addEventListener("click", () => {
    unfold(card, !card.classList.contains("open"));
    drawAll();
  }));
  on("details", "click", (button) => {
    const open = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(open));
    button.textContent = open ? "Close all" : "Open all";
    allCards.forEach((card) => unfold(card, open));
    drawAll();
  });
  // A link to a card, as in the table, opens it, even one that waits for `Show all`.
  const follow = () => {
    const card = document.getElementById(location.hash.slice(1));
    if (!card || !card.classList.contains("card")) return;
    if (card.classList.contains("more")) { const all = document.getElementById("all"); if (all) all.click(); }
    unfold(card, true);
    drawAll();
    card.scrollIntoView();
  };
  window.addEventListener("hashchange", follow);
  on("all", "click", (button) => { document.querySelector(".cards").classList.add("all"); button.parentElement.remove(); drawAll(); });
  on("spin", "click", (button) => {
    spinning = !spinning;
    button.setAttribute("aria-pressed", String(spinning));
    const frame = () => {
      if (!spinning) return;
      views.forEach((view) => {
        const box = view.canvas.getBoundingClientRect();
        if (box.width && box.bottom > 0 && box.top < window.innerHeight) turn(view, 0.012, 0);
      });
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  });
  follow();
})();

// The table: sort by a column's button, filter by text, energy and flags.
(function () {
  const table = document.getElementById("survivors");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const value = (row, i) => {
    const cell = row.cells[i];
    if (!("v" in cell.dataset)) return cell.textContent.trim();
    return cell.dataset.v === "" ? NaN : Number(cell.dataset.v);
  };
  table.querySelectorAll("thead button").forEach((button, i) => {
    button.addEventListener("click", () => {
      const head = button.parentElement;
      const down = head.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("th[aria-sort]").forEach((th) => th.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const sign = down ? -1 : 1;
      rows.sort((a, b) => {
        const x = value(a, i), y = value(b, i);
        if (typeof x === "string") return sign * x.localeCompare(y, "en", { numeric: true });
        if (Number.isNaN(x) || Number.isNaN(y)) return Number(Number.isNaN(x)) - Number(Number.isNaN(y)); // unknown last
        return sign * (x - y);
      });
      body.append(...rows);
    });
  });
  const find = document.getElementById("find"), energy = document.getElementById("max-energy");
  const flags = Array.from(document.querySelectorAll("input.flag"));
  const shown = document.getElementById("shown");
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  function filter() {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    const limit = energy.value === "" ? Infinity : Number(energy.value);
    let count = 0;
    for (const row of rows) {
      const keep = words.every((w) => texts.get(row).includes(w)) && !(Number(row.dataset.energy) > limit) &&
        flags.every((f) => !f.checked || row.dataset[f.value] === "yes");
      row.hidden = !keep;
      count += keep;
    }
    shown.textContent = count + " of " + rows.length + " shown";
  }
  [find, energy].forEach((input) => input.addEventListener("input", filter));
  flags.forEach((box) => box.addEventListener("change", filter));
  filter();
})();
