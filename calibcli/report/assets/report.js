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

  // Rounded, with decimals near 0 and 1 (`fine`: from 10 % and 90 % on), and never to certainty.
  const percent = (share, fine = false) => {
    if (share === null) return "–";
    if (share === 0 || share === 1) return `${100 * share} %`;
    if (share < 0.0001) return "<0.01 %";
    if (share > 1 - 0.0001) return ">99.99 %";
    const rarer = Math.min(share, 1 - share);
    const one = share > 0.5 && !fine && rarer > 0.0006;
    const digits = rarer < 0.01 ? (one ? 1 : 2) : fine && rarer < 0.1 ? 1 : 0;
    return `${(100 * share).toFixed(digits)} %`;
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
  const shown = (measurement) => (state.picked === ALL ? measurement : part(measurement, state.picked));

  // The bins on show. Those of a probability say where they begin and end; others have equal width.
  const shownBins = (measurement) => {
    const { bins, spans } = shown(measurement);
    return bins.map(([number, rows, share, says, right, lower, upper], i) => {
      const [from, to] = spans ? spans[i] : [number / BINS, (number + 1) / BINS];
      return { rows, share, says, right, lower, upper, from, to };
    });
  };

  // The bars of the histogram on show.
  const shownBars = (measurement) => {
    const { bars } = shown(measurement);
    return bars ? bars.map(([from, to, rows, share]) => ({ from, to, rows, share })) : shownBins(measurement);
  };

  const shownRows = (measurement) => shownBins(measurement).reduce((sum, bin) => sum + bin.rows, 0);

  // Of the rows that are predicted to be of a class, the prediction is looked at, whatever is of all rows.
  const ofPrediction = () => !data.axes || (state.picked !== ALL && isClass(state.picked));

  const words = () => (ofPrediction()
    ? { bin: "confidence", x: "says (confidence)", y: "is right (accuracy)", right: "is right" }
    : { bin: data.axes.says, x: `says ${data.axes.says}`, y: `came true (${data.axes.right})`, right: "came true" });

  // Where both axes begin and end; those that begin above 0 are logarithmic.
  const limits = () => (ofPrediction() ? [0, 1] : data.scale);

  const within = (value) => Math.min(Math.max(value, limits()[0]), limits()[1]);

  // As many digits as tell rare probabilities apart.
  const chance = (share) => percent(share, limits()[0] > 0);

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
        const [grid, lower, upper] = measurement.band.map((values) => values.map(within));
        ctx.beginPath();
        grid.forEach((value, i) => ctx.lineTo(x.getPixelForValue(value), y.getPixelForValue(upper[i])));
        for (let i = grid.length - 1; i >= 0; i -= 1) {
          ctx.lineTo(x.getPixelForValue(grid[i]), y.getPixelForValue(lower[i]));
        }
        ctx.fill();
      } else {
        for (const { from, to, lower, upper } of shownBins(measurement)) {
          const [left, right] = [from, to].map((end) => x.getPixelForValue(within(end)));
          const margin = 0.07 * (right - left);
          const top = y.getPixelForValue(within(upper));
          const height = y.getPixelForValue(within(lower)) - top;
          // A band that is narrower than a line is still to be seen.
          ctx.fillRect(left + margin, top, right - left - 2 * margin, Math.max(height, 1.5));
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

  // An axis of probabilities, ticked at quarters or at powers of ten.
  const axis = ([min, max]) => {
    const ticks = min
      ? Array.from({ length: Math.round(Math.log10(max / min)) + 1 }, (_, step) => min * 10 ** step)
      : [0, 0.25, 0.5, 0.75, 1];
    return {
      type: min ? "logarithmic" : "linear",
      min,
      max,
      afterBuildTicks: (scale) => { scale.ticks = ticks.map((value) => ({ value })); },
    };
  };

  const share = (title, width) => ({
    ...axis(limits()),
    title: { display: true, text: title, color: colour("--quiet") },
    grid: { color: colour("--grid"), drawTicks: false },
    border: { display: false },
    ticks: {
      color: colour("--quiet"), padding: 6, maxRotation: 0, autoSkip: false,
      callback: (v) => `${Number((100 * v).toPrecision(3))} %`,
    },
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
      ? confidence.map((says, i) => ({ says, right: accuracy[i] }))
      : bins.map((bin) => ({ ...bin, bin }));
    // What never came stands on the edge of logarithmic axes.
    for (const point of points) Object.assign(point, { x: within(point.says), y: within(point.right) });
    const [low, high] = limits();
    const { bin: named, x: xTitle, y: yTitle, right } = words();
    const radius = (context) =>
      context.raw && context.raw.bin ? 2.5 + 5.5 * Math.sqrt(context.raw.share) : 0;
    const curve = showsCurve();
    return {
      type: "scatter",
      data: {
        datasets: [
          {
            data: [{ x: low, y: low }, { x: high, y: high }],
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
          x: share(xTitle),
          y: share(yTitle, AXIS_WIDTH),
        },
        plugins: {
          legend: { display: false },
          tooltip: tooltip({
            title: ([item]) => (item && item.raw.bin
              ? `${named} ${chance(item.raw.from)} to ${chance(item.raw.to)}` : ""),
            label: ({ raw }) => [
              `says ${chance(raw.says)}`,
              `${right} ${chance(raw.right)}`,
              ...(raw.bin ? [
                `calibrated: ${chance(raw.lower)} to ${chance(raw.upper)}`,
                `${count(raw.rows)} rows (${percent(raw.share)})`,
              ] : []),
            ],
          }),
        },
      },
      plugins: [band(measurement)],
    };
  };

  // Bars between their ends, the one under the pointer in full colour.
  const bars = (shownHere, shade) => ({
    id: "bars",
    beforeDatasetsDraw(chart) {
      const { ctx, scales: { x, y } } = chart;
      const active = chart.getActiveElements().map(({ index }) => index);
      ctx.save();
      shownHere.forEach(({ from, to, share: height }, index) => {
        const [left, right] = [from, to].map((end) => x.getPixelForValue(within(end)));
        const [top, bottom] = [height, 0].map((value) => y.getPixelForValue(value));
        ctx.fillStyle = active.includes(index) ? shade : faded(shade, 0.6);
        ctx.fillRect(left + 0.04 * (right - left), top, 0.92 * (right - left), bottom - top);
      });
      ctx.restore();
    },
  });

  const histogram = (measurement, shade, tallest) => {
    const shownHere = shownBars(measurement);
    const middle = (from, to) => (limits()[0] ? Math.sqrt(from * to) : (from + to) / 2);
    return {
      type: "scatter",
      data: {
        datasets: [{
          hovers: true,
          data: shownHere.map((bar) => ({ ...bar, x: middle(within(bar.from), within(bar.to)), y: bar.share })),
          pointRadius: 0,
          pointHoverRadius: 0,
          pointHitRadius: 8,
        }],
      },
      options: {
        animation: false,
        maintainAspectRatio: false,
        layout: { padding: { top: 4, right: EDGE } },
        interaction: { mode: "nearest", axis: "x", intersect: false },
        scales: {
          x: { ...axis(limits()), offset: false, display: false },
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
            title: ([item]) => (item ? `${words().bin} ${chance(item.raw.from)} to ${chance(item.raw.to)}` : ""),
            label: ({ raw }) => `${count(raw.rows)} rows (${percent(raw.share)})`,
          }),
        },
      },
      plugins: [bars(shownHere, shade)],
    };
  };

  const binsTable = (measurement) => {
    const { bin: named, right } = words();
    const head = [named, "says", right, "calibrated", "rows"].map((text) => element("th", {}, text));
    const rows = shownBins(measurement).slice().reverse().map((bin) => element("tr", {}, ...[
      `${chance(bin.from)} to ${chance(bin.to)}`,
      chance(bin.says),
      chance(bin.right),
      `${chance(bin.lower)} to ${chance(bin.upper)}`,
      count(bin.rows),
    ].map((text, i) => element(i ? "td" : "th", i ? {} : { scope: "row" }, text))));
    return element("details", {},
      element("summary", {}, "The numbers"),
      element("div", { className: "scroll" },
        element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows))));
  };

  const described = (measurement) => {
    const rows = `${count(shownRows(measurement))} rows`;
    const right = ofPrediction() ? "right" : "came";
    if (state.picked === ALL) {
      return measurement.says === null ? rows : `says ${measurement.says}, ${right} ${measurement.right} · ${rows}`;
    }
    const bins = shownBins(measurement);
    if (!bins.length) return isClass(state.picked) ? "never predicted" : "no rows";
    const mean = (name) => bins.reduce((sum, bin) => sum + bin.share * bin[name], 0);
    return `says ${chance(mean("says"))}, ${right} ${chance(mean("right"))} · ${rows}`;
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
    const largest = Math.max(...measurements.flatMap((m) => shownBars(m).map((bar) => bar.share)), 0.01);
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
      flat.setAttribute("aria-label", `Where the rows are, ${title}`);
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
    { head: "ECE, plug-in", key: "error", cell: ({ error }) => textCell(error === null ? "–" : error.toFixed(3)),
      title: "top-label calibration error: the ECE of the rows that are predicted so, with what noise adds: of few rows it is mostly that" },
    { head: "of the plug-in", key: "part", cell: ({ part }) => textCell(percent(part)),
      title: "share of the top-label calibration error of all rows, noise included, that is made here" },
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
