"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { measurements } = data;
  const BINS = 15;
  const ALL = -1;
  const byId = (id) => document.getElementById(id);

  // What the reader has chosen; everything on the page follows from it.
  const state = {
    picked: ALL,
    style: "binned",
    measurement: measurements.length - 1,
    sort: { key: "part", descending: true },
    filter: "",
  };
  let charts = [];

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // A colour "#rrggbb" that what is behind it shines through.
  const faded = (shade, opacity) => shade + Math.round(255 * opacity).toString(16).padStart(2, "0");

  const count = (number) => number.toLocaleString("en-US", { maximumFractionDigits: 1 });

  // One decimal near 0 and 1, and never rounded to certainty.
  const percent = (share) => {
    if (share === null) return "–";
    const fine = (share > 0 && share < 0.01) || (share > 0.99 && share < 1);
    return fine ? `${(Math.floor(share * 1000) / 10).toFixed(1)} %` : `${(100 * share).toFixed(0)} %`;
  };

  const element = (tag, properties = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  };

  // Classes come first, then slices: a number stands for either.
  const isClass = (position) => position < data.names.length;
  const part = (measurement, position) =>
    isClass(position) ? measurement.classes[position] : measurement.slices[position - data.names.length];

  // The rows on show: all of them, those that are predicted to be of a class, or those of a slice.
  const shownBins = (measurement) =>
    state.picked === ALL ? measurement.bins : part(measurement, state.picked).bins;

  const shownRows = (measurement) =>
    shownBins(measurement).reduce((sum, bin) => sum + bin[1], 0);

  // What the rows of a class or of a slice are called.
  const pickedName = (position) => {
    if (!isClass(position)) return `${data.column}: ${data.slices[position - data.names.length]}`;
    const name = data.names[position];
    return name === String(data.numbers[position]) ? `predicted class ${name}` : `predicted ${name}`;
  };

  const showsCurve = () => state.style === "corp" && state.picked === ALL;

  // ---- diagrams ----

  // What a calibrated model would show, behind everything else.
  const band = (measurement) => ({
    id: "band",
    beforeDatasetsDraw(chart) {
      const { ctx, scales: { x, y } } = chart;
      ctx.save();
      ctx.fillStyle = colour("--band");
      if (showsCurve()) {
        const [grid, lower, upper] = measurement.band;
        ctx.beginPath();
        grid.forEach((value, i) => ctx.lineTo(x.getPixelForValue(value), y.getPixelForValue(upper[i])));
        for (let i = grid.length - 1; i >= 0; i -= 1) {
          ctx.lineTo(x.getPixelForValue(grid[i]), y.getPixelForValue(lower[i]));
        }
        ctx.fill();
      } else {
        for (const [number, , , , , lower, upper] of shownBins(measurement)) {
          const left = x.getPixelForValue((number + 0.07) / BINS);
          const right = x.getPixelForValue((number + 0.93) / BINS);
          const top = y.getPixelForValue(upper);
          // A band that is narrower than a line is still to be seen.
          ctx.fillRect(left, top, right - left, Math.max(y.getPixelForValue(lower) - top, 1.5));
        }
      }
      ctx.restore();
    },
  });

  const tooltip = (lines) => ({
    displayColors: false,
    backgroundColor: colour("--text"),
    titleColor: colour("--page"),
    bodyColor: colour("--page"),
    padding: 10,
    cornerRadius: 6,
    caretSize: 5,
    filter: (item) => item.dataset.hovers === true,
    callbacks: lines,
  });

  const share = (name, title, width) => ({
    type: "linear",
    min: 0,
    max: 1,
    title: { display: true, text: title, color: colour("--quiet") },
    grid: { color: colour("--grid"), drawTicks: false },
    border: { display: false },
    ticks: { stepSize: 0.25, color: colour("--quiet"), padding: 6, maxRotation: 0, callback: (v) => `${100 * v} %` },
    ...(width ? { afterFit: (scale) => { scale.width = width; } } : {}),
  });

  // Room for the numbers of the axes, the same in both diagrams of a card.
  const AXIS_WIDTH = 58;
  const EDGE = 24;

  // The largest of 1, 2, 5 times a power of ten that is not above a value.
  const roundBelow = (value) => {
    const power = 10 ** Math.floor(Math.log10(value));
    return [5, 2, 1].map((step) => step * power).find((step) => step <= value * 1.000001);
  };

  const reliability = (measurement, shade) => {
    const bins = shownBins(measurement);
    const [confidence, accuracy] = measurement.curve;
    const points = showsCurve()
      ? confidence.map((x, i) => ({ x, y: accuracy[i] }))
      : bins.map((bin) => ({ x: bin[3], y: bin[4], bin }));
    const radius = (context) =>
      context.raw && context.raw.bin ? 2.5 + 5.5 * Math.sqrt(context.raw.bin[2]) : 0;
    const curve = showsCurve();
    return {
      type: "scatter",
      data: {
        datasets: [
          {
            data: [{ x: 0, y: 0 }, { x: 1, y: 1 }],
            showLine: true,
            borderColor: colour("--quiet"),
            borderDash: [5, 4],
            borderWidth: 1.2,
            pointRadius: 0,
            pointHitRadius: 0,
          },
          {
            hovers: true,
            data: points,
            showLine: true,
            borderColor: curve ? shade : faded(shade, 0.55),
            borderWidth: curve ? 2.2 : 1.2,
            pointBackgroundColor: shade,
            pointBorderColor: colour("--card"),
            pointBorderWidth: curve ? 0 : 1,
            pointRadius: curve ? 0 : radius,
            pointHoverRadius: curve ? 5 : (context) => radius(context) + 1.5,
            pointHitRadius: 8,
            clip: 8,
          },
        ],
      },
      options: {
        animation: false,
        maintainAspectRatio: false,
        layout: { padding: { top: 8, right: EDGE } },
        interaction: { mode: "nearest", axis: "x", intersect: false },
        scales: {
          x: share("x", "says (confidence)"),
          y: share("y", "is right (accuracy)", AXIS_WIDTH),
        },
        plugins: {
          legend: { display: false },
          tooltip: tooltip({
            title: ([item]) => (item && item.raw.bin
              ? `confidence ${percent(item.raw.bin[0] / BINS)} to ${percent((item.raw.bin[0] + 1) / BINS)}` : ""),
            label: ({ raw }) => [
              `says ${percent(raw.x)}`,
              `is right ${percent(raw.y)}`,
              ...(raw.bin ? [
                `calibrated: ${percent(raw.bin[5])} to ${percent(raw.bin[6])}`,
                `${count(raw.bin[1])} rows (${percent(raw.bin[2])})`,
              ] : []),
            ],
          }),
        },
      },
      plugins: [band(measurement)],
    };
  };

  const histogram = (measurement, shade, tallest) => {
    const bins = shownBins(measurement);
    const points = Array.from({ length: BINS }, (_, number) => ({ x: (number + 0.5) / BINS, y: 0 }));
    for (const bin of bins) Object.assign(points[bin[0]], { y: bin[2], bin });
    return {
      type: "bar",
      data: {
        datasets: [{
          hovers: true,
          data: points,
          backgroundColor: faded(shade, 0.6),
          hoverBackgroundColor: shade,
          categoryPercentage: 1,
          barPercentage: 0.92,
          minBarLength: 0,
        }],
      },
      options: {
        animation: false,
        maintainAspectRatio: false,
        layout: { padding: { top: 4, right: EDGE } },
        interaction: { mode: "nearest", axis: "x", intersect: false },
        scales: {
          x: { type: "linear", min: 0, max: 1, offset: false, display: false },
          y: {
            min: 0,
            max: tallest * 1.05,
            title: { display: true, text: "rows", color: colour("--quiet") },
            grid: { color: colour("--grid"), drawTicks: false },
            border: { display: false },
            ticks: { color: colour("--quiet"), padding: 6, callback: percent },
            afterBuildTicks: (scale) => { scale.ticks = [0, roundBelow(tallest)].map((value) => ({ value })); },
            afterFit: (scale) => { scale.width = AXIS_WIDTH; },
          },
        },
        plugins: {
          legend: { display: false },
          tooltip: tooltip({
            title: () => "",
            label: ({ raw }) => (raw.bin
              ? `${count(raw.bin[1])} rows (${percent(raw.bin[2])})` : "no rows"),
          }),
        },
      },
    };
  };

  const binsTable = (measurement) => {
    const head = ["confidence", "says", "is right", "calibrated", "rows"].map((text) => element("th", {}, text));
    const rows = shownBins(measurement).slice().reverse().map((bin) => element("tr", {}, ...[
      `${percent(bin[0] / BINS)} to ${percent((bin[0] + 1) / BINS)}`,
      percent(bin[3]),
      percent(bin[4]),
      `${percent(bin[5])} to ${percent(bin[6])}`,
      count(bin[1]),
    ].map((text, i) => element(i ? "td" : "th", i ? {} : { scope: "row" }, text))));
    return element("details", {},
      element("summary", {}, "The numbers"),
      element("div", { className: "scroll" },
        element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows))));
  };

  const described = (measurement) => {
    const rows = `${count(shownRows(measurement))} rows`;
    if (state.picked === ALL) {
      return measurement.says === null ? rows : `says ${measurement.says}, right ${measurement.right} · ${rows}`;
    }
    const bins = shownBins(measurement);
    if (!bins.length) return isClass(state.picked) ? "never predicted" : "no rows";
    const mean = (place) => bins.reduce((sum, bin) => sum + bin[2] * bin[place], 0);
    return `says ${percent(mean(3))}, right ${percent(mean(4))} · ${rows}`;
  };

  const isFit = measurements.length === 2 && measurements[0].name === "before";
  const shadeName = (index) => (isFit && index === 0 ? "--before" : "--accent");
  const shade = (index) => colour(shadeName(index));

  // What is drawn: the measurement, and which of its rows.
  const titled = ({ name }) => (state.picked === ALL ? name : `${name} · ${pickedName(state.picked)}`);

  const key = () => {
    const names = isFit ? measurements.map(({ name }) => name) : ["the model"];
    byId("marks").replaceChildren(...names.map((name, index) => {
      const dot = element("i", { className: "dot" });
      dot.style.background = `var(${shadeName(index)})`;
      return element("span", {}, dot, name);
    }));
  };

  const draw = () => {
    charts.forEach((chart) => chart.destroy());
    charts = [];
    const cards = byId("cards");
    const open = Array.from(cards.querySelectorAll("details"), (details) => details.open);
    cards.replaceChildren();
    Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
    const largest = Math.max(...measurements.flatMap((m) => shownBins(m).map((bin) => bin[2])), 0.01);
    const canvases = [];
    const alone = measurements.length === 1;
    measurements.forEach((measurement, index) => {
      const square = element("canvas");
      const flat = element("canvas");
      const text = described(measurement);
      square.setAttribute("role", "img");
      const title = titled(measurement);
      square.setAttribute("aria-label", `Reliability diagram, ${title}: ${text}`);
      flat.setAttribute("role", "img");
      flat.setAttribute("aria-label", `Histogram of the confidence, ${title}`);
      const table = binsTable(measurement);
      // One diagram alone leaves room for its numbers beside it.
      table.open = open.length ? open[index] : alone && matchMedia("(min-width: 56rem)").matches;
      cards.append(element("article", { className: alone ? "card alone" : "card" },
        element("header", {}, element("h3", {}, title), element("span", { className: "quiet" }, text)),
        element("div", { className: "square" }, square),
        element("div", { className: "flat" }, flat),
        table));
      canvases.push([square, flat]);
    });
    // Only now do the cards have their width.
    canvases.forEach(([square, flat], index) => {
      const measurement = measurements[index];
      charts.push(new Chart(square, reliability(measurement, shade(index))));
      charts.push(new Chart(flat, histogram(measurement, shade(index), largest)));
    });
    for (const input of document.querySelectorAll("#styles input")) input.disabled = state.picked !== ALL;
    document.documentElement.dataset.drawn = String(charts.length);
  };

  // ---- the table of classes ----

  const WIDEST_GAP = 0.25;

  const gapCell = ({ gap, deviation }) => {
    if (gap === null) return element("td", { className: "gap" }, "–");
    const points = (100 * Math.abs(gap)).toFixed(1);
    const bar = element("i");
    const width = Math.min(Math.abs(gap) / WIDEST_GAP, 1) * 50;
    bar.style.width = `${width}%`;
    bar.style.left = gap > 0 ? "50%" : `${50 - width}%`;
    bar.style.background = `var(${gap > 0 ? "--before" : "--accent"})`;
    const sign = points === "0.0" ? "" : gap > 0 ? "+" : "−";
    const chance = deviation === null || Math.abs(deviation) < 2;
    return element("td", { className: chance ? "gap chance" : "gap" },
      element("span", { className: "track" }, bar), element("b", {}, `${sign}${points} pp`));
  };

  const textCell = (text) => element("td", {}, text);

  // What matters most stands next to the names, where a phone has it in sight.
  const COLUMNS = [
    { head: "class", key: "number", cell: ({ name }) => element("td", { title: name }, name) },
    { head: "ECE", key: "error", cell: ({ error }) => textCell(error === null ? "–" : error.toFixed(3)),
      title: "top-label calibration error: the ECE of the rows that are predicted so" },
    { head: "of the error", key: "part", cell: ({ part }) => textCell(percent(part)),
      title: "share of the top-label calibration error of all rows that is made here" },
    { head: "says − right", key: "size", cell: gapCell,
      title: "mean confidence minus how often they are right, in percentage points; grey where chance explains it (two standard errors)" },
    { head: "says", key: "says", cell: ({ says }) => textCell(percent(says)),
      title: "mean confidence of the predictions" },
    { head: "is right", key: "right", cell: ({ right }) => textCell(percent(right)),
      title: "share of the predictions that are right (precision)" },
    { head: "predicted", key: "predicted", cell: ({ predicted }) => textCell(count(predicted)),
      title: "rows that are predicted so" },
    { head: "labelled", key: "labelled", cell: ({ labelled }) => textCell(count(labelled)),
      title: "rows with this label" },
    { head: "expected", key: "expected", cell: ({ expected }) => textCell(count(expected)),
      title: "sum of the class's probability over all rows" },
    { head: "recall", key: "recall", cell: ({ recall }) => textCell(percent(recall)),
      title: "share of the rows with this label that are predicted so" },
  ];

  // A line of the table by the keys of its columns.
  const entryOf = (position) => {
    const [labelled, expected, predicted, recall, right, says, error, part, deviation] =
      measurements[state.measurement].classes[position].figures;
    const gap = right === null ? null : says - right;
    return {
      position, number: data.numbers[position], name: data.names[position], labelled, expected,
      predicted, recall, right, says, gap, size: gap === null ? null : Math.abs(gap), error, part, deviation,
    };
  };

  // What is null comes last, either way.
  const compared = ({ key, descending }) => (a, b) => {
    const [left, right] = [a[key], b[key]];
    if (left === null || right === null) return (left === null) - (right === null) || a.position - b.position;
    return (descending ? right - left : left - right) || a.position - b.position;
  };

  const tabulate = () => {
    const wanted = state.filter.trim().toLowerCase();
    const isWanted = ({ name, number }) =>
      !wanted || name.toLowerCase().includes(wanted) || String(number) === wanted;
    const entries = data.names.map((_, position) => entryOf(position)).filter(isWanted).sort(compared(state.sort));
    document.querySelector("#classes tbody").replaceChildren(...entries.map((entry) => {
      const row = element("tr", { tabIndex: 0, className: entry.position === state.picked ? "picked" : "" },
        ...COLUMNS.map(({ cell }) => cell(entry)));
      row.dataset.position = entry.position;
      return row;
    }));
    const hidden = data.classes - data.numbers.length;
    byId("found").textContent = wanted ? `${count(entries.length)} of ${count(data.numbers.length)}`
      : hidden ? `the ${count(data.numbers.length)} of ${count(data.classes)} classes that add the most to the error` : "";
    document.querySelectorAll("#classes thead th").forEach((head, place) => {
      head.setAttribute("aria-sort",
        COLUMNS[place].key !== state.sort.key ? "none" : state.sort.descending ? "descending" : "ascending");
    });
  };

  const pick = (position) => {
    state.picked = position;
    byId("picker").value = String(position);
    draw();
    for (const row of document.querySelectorAll("tr[data-position]")) {
      row.classList.toggle("picked", Number(row.dataset.position) === position);
    }
  };

  // Rows that a click draws, and draws no more.
  const makePickable = (body) => {
    const pickRow = (event) => {
      const row = event.target.closest("tr[data-position]");
      if (!row) return;
      const position = Number(row.dataset.position);
      pick(position === state.picked ? ALL : position);
      const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
      byId("reliability").scrollIntoView({ behavior: calm ? "auto" : "smooth" });
    };
    body.addEventListener("click", pickRow);
    body.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pickRow(event); }
    });
  };

  const makePicker = () => {
    const picker = byId("picker");
    picker.append(element("option", { value: ALL }, "all"));
    const add = (position) => picker.append(element("option", { value: position }, pickedName(position)));
    data.slices.forEach((_, position) => add(data.names.length + position));
    data.names.forEach((_, position) => add(position));
    picker.addEventListener("change", () => pick(Number(picker.value)));
    picker.parentElement.hidden = picker.length === 1;
  };

  const makeClasses = () => {
    if (!data.names.length) return;
    byId("class-section").hidden = false;
    const choices = byId("measurements");
    choices.hidden = measurements.length === 1;
    measurements.forEach((measurement, index) => {
      const input = element("input", { type: "radio", name: "measurement", value: index, checked: index === state.measurement });
      input.addEventListener("change", () => { state.measurement = index; tabulate(); });
      choices.append(element("label", {}, input, element("span", {}, measurement.name)));
    });
    const heads = COLUMNS.map(({ head, key, title = "" }) => {
      const button = element("button", { type: "button", title }, head);
      button.addEventListener("click", () => {
        const { sort } = state;
        state.sort = { key, descending: sort.key === key ? !sort.descending : key !== "number" };
        tabulate();
      });
      return element("th", { scope: "col" }, button);
    });
    document.querySelector("#classes thead").append(element("tr", {}, ...heads));
    byId("filter").addEventListener("input", (event) => { state.filter = event.target.value; tabulate(); });
    makePickable(document.querySelector("#classes tbody"));
    tabulate();
  };

  // ---- tables that the page came with ----

  // What a cell is sorted by: its number, nothing where it has none, or its text.
  const sortKey = (row, column) => {
    const cell = row.cells[column];
    if (column === 0) return cell.textContent;
    return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
  };

  const sortRows = (table, column, descending) => {
    const compare = (left, right) => {
      const [a, b] = [sortKey(left, column), sortKey(right, column)];
      if (a === null || b === null) return (a === null) - (b === null);
      const order = column === 0 ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
      return descending ? -order : order;
    };
    const [body] = table.tBodies;
    body.replaceChildren(...Array.from(body.rows).sort(compare));
    Array.from(table.tHead.rows[0].cells).forEach((head, place) => {
      head.setAttribute("aria-sort", place !== column ? "none" : descending ? "descending" : "ascending");
    });
  };

  const makeSortable = (table) => {
    Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
      const button = element("button", { type: "button" }, head.textContent);
      button.addEventListener("click", () => {
        const sorted = head.getAttribute("aria-sort");
        sortRows(table, column, sorted && sorted !== "none" ? sorted === "ascending" : column !== 0);
      });
      head.replaceChildren(button);
    });
    const known = { class: data.names, slice: data.slices }[table.dataset.of] || [];
    const first = table.dataset.of === "slice" ? data.names.length : 0;
    for (const row of table.tBodies[0].rows) {
      const place = known.indexOf(row.cells[0].textContent);
      if (place >= 0) Object.assign(row, { tabIndex: 0 }).dataset.position = first + place;
    }
    makePickable(table.tBodies[0]);
  };

  makePicker();
  makeClasses();
  document.querySelectorAll("table.sortable").forEach(makeSortable);
  for (const input of document.querySelectorAll("#styles input")) {
    input.addEventListener("change", () => { state.style = input.value; draw(); });
  }
  // Paper is white whatever the screen's colours are.
  for (const query of ["(prefers-color-scheme: dark)", "print"]) {
    matchMedia(query).addEventListener("change", draw);
  }
  key();
  draw();
})();
