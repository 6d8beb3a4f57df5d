"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const content = JSON.parse(byId("content").textContent);
  const images = JSON.parse(byId("images").textContent);
  byId("images").remove();

  const { classes, names, given, suggested, score, likely, probability, votes } = content;
  const total = names.length;
  const KEY = `ieg-review:${content.digest}`;
  const SOURCE = "data:image/jpeg;base64,";
  const CAPTION = 54;
  const WIDTH = 148;
  const GAP = 14.4;
  const NUMBER_KEYS = 10;
  const MOST_MATCHES = 100;
  const TAGS = { keep: "✓ kept", suggestion: "✓ changed", other: "✓ changed", drop: "✕ dropped" };
  const placeOf = new Map(names.map((name, number) => [name, number]));
  const classOf = new Map(classes.map((name, number) => [name, number]));
  const hasKeyEach = classes.length <= NUMBER_KEYS;
  // A class called 7 has the key 7, whatever its place is.
  const areDigits = classes.every((name) => /^\d$/.test(name));

  // number → [kind, class], in the order of the review.
  let decisions = new Map();
  let history = []; // [number, the decision before or null]
  // path → [path, label, kind] of images that are not on this page.
  let carried = new Map(content.earlier.map((row) => [row[0], row]));
  let unsaved = 0;
  let current = 0;
  let view = [];
  const filter = { given: -1, suggested: -1, state: "all" };

  // ------------------------------------------------------------------------------------ text

  const percent = (share) =>
    share > 0.995 ? ">99\u00a0%" : share < 0.005 ? "<1\u00a0%" : `${Math.round(100 * share)}\u00a0%`;
  const plural = (count, one, many) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
  const probabilityOf = (number, label) => {
    const rank = likely[number].indexOf(label);
    return rank < 0 ? 0 : probability[number][rank];
  };
  const kindOf = (number, label) =>
    label === given[number] ? "keep" : label === suggested[number] ? "suggestion" : "other";
  const isChange = (decision) => decision[0] === "suggestion" || decision[0] === "other";

  function said(number) {
    const decision = decisions.get(number);
    if (!decision) return "";
    const [kind, label] = decision;
    if (kind === "drop") return "Dropped";
    return kind === "keep" ? `Kept as ${classes[label]}` : `Changed to ${classes[label]}`;
  }

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  function tell(message) {
    byId("message").textContent = message;
    byId("message").hidden = !message;
    resize();
  }

  // ----------------------------------------------------------------------------------- state

  function store() {
    const rows = { decisions: [...decisions], carried: [...carried.values()] };
    try {
      localStorage.setItem(KEY, JSON.stringify({ ...rows, history, unsaved, current }));
    } catch {
      tell("This browser keeps nothing for this page: save decisions.csv before you close it.");
    }
  }

  function restore() {
    let state = null;
    try {
      state = JSON.parse(localStorage.getItem(KEY));
    } catch {
      return; // the first decision says that nothing can be kept
    }
    if (!state) return;
    decisions = new Map(state.decisions);
    history = state.history;
    for (const row of state.carried) carried.set(row[0], row);
    unsaved = state.unsaved;
    current = state.current;
  }

  function matches(number) {
    if (filter.given >= 0 && given[number] !== filter.given) return false;
    if (filter.suggested >= 0 && suggested[number] !== filter.suggested) return false;
    const decision = decisions.get(number);
    switch (filter.state) {
      case "all": return true;
      case "undecided": return !decision;
      case "decided": return Boolean(decision);
      case "changed": return Boolean(decision) && isChange(decision);
      default: return Boolean(decision) && decision[0] === filter.state;
    }
  }

  function refilter() {
    view = names.map((_, number) => number).filter(matches);
    if (!view.includes(current)) current = view.find((number) => !decisions.has(number)) ?? view[0];
  }

  function decide(kind, label) {
    if (current === undefined) return;
    const number = current;
    history.push([number, decisions.get(number) ?? null]);
    decisions.set(number, [kind, label]);
    unsaved += 1;
    const place = view.indexOf(number);
    const rest = [...view.slice(place + 1), ...view.slice(0, place)];
    const next = rest.find((other) => !decisions.has(other));
    current = next ?? number;
    refilter();
    store();
    draw();
    announce(`${said(number)}. ${next === undefined ? "No undecided label is left here. " : ""}`);
  }

  const choose = (label) => decide(kindOf(current, label), label);

  function undo() {
    const last = history.pop();
    if (!last) return;
    const [number, before] = last;
    if (before) decisions.set(number, before);
    else decisions.delete(number);
    unsaved += 1;
    current = number;
    if (!matches(number)) Object.assign(filter, { given: -1, suggested: -1, state: "all" });
    refilter();
    store();
    draw();
    announce("Undone. ");
  }

  function move(step) {
    if (!view.length) return;
    const place = Math.max(0, Math.min(view.length - 1, view.indexOf(current) + step));
    go(view[place]);
  }

  function go(number) {
    current = number;
    store();
    draw();
    announce("");
  }

  // ------------------------------------------------------------------------------------- CSV

  // As in ieg_core/audit/decisions.py: no spreadsheet executes what such a cell holds.
  const RISKY = /^['=+\-@＝＋－＠\t\r\n]/;
  const ESCAPED = /^'['=+\-@＝＋－＠\t\r\n]/;
  const toCell = (text) => `"${(RISKY.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;

  function toCsv() {
    const rows = [["path", "label", "decision"], ...carried.values()];
    for (const [number, [kind, label]] of decisions) {
      rows.push([names[number], kind === "drop" ? "" : classes[label], kind]);
    }
    return rows.map((row) => row.map(toCell).join(",") + "\n").join("");
  }

  function save() {
    const link = element("a", { download: "decisions.csv" });
    link.href = URL.createObjectURL(new Blob([toCsv()], { type: "text/csv" }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    unsaved = 0;
    store();
    draw();
  }

  function parseCsv(text) {
    const rows = [];
    let row = [];
    const cell = /("(?:[^"]|"")*"|[^",\r\n]*)(,|\r\n|\n|\r|$)/y;
    const source = text.replace(/^\ufeff/, "");
    while (cell.lastIndex < source.length) {
      const start = cell.lastIndex;
      const found = cell.exec(source);
      if (!found) throw new Error(`it is not valid CSV at character ${start + 1}`);
      const [, raw, end] = found;
      row.push(raw.startsWith('"') ? raw.slice(1, -1).replaceAll('""', '"') : raw);
      if (end === ",") {
        if (cell.lastIndex === source.length) row.push("");
        else continue;
      }
      if (row.length > 1 || row[0]) rows.push(row);
      row = [];
    }
    return rows;
  }

  function find(cell, known) {
    const plain = ESCAPED.test(cell) ? cell.slice(1) : cell;
    return [plain, cell, plain.trim()].map((text) => known.get(text)).find((at) => at !== undefined);
  }

  // Checks all lines before it takes any.
  function take(text) {
    const [header = [], ...rows] = parseCsv(text);
    const columns = ["path", "label", "decision"].map((name) =>
      header.findIndex((cell) => cell.trim() === name));
    if (columns.includes(-1)) throw new Error("it lacks one of the columns path, label and decision");
    const taken = new Map();
    rows.forEach((row, index) => {
      const [name, label, kind] = columns.map((column) => row[column] ?? "");
      const decision = kind.trim();
      if (!["keep", "suggestion", "other", "drop"].includes(decision)) {
        throw new Error(
          `row ${index + 1} has the decision "${kind}": expected keep, suggestion, other or drop`);
      }
      const chosen = decision === "drop" ? -1 : find(label, classOf);
      if (chosen === undefined) {
        throw new Error(`row ${index + 1} has the label "${label}": expected one of the classes here`);
      }
      const number = find(name, placeOf);
      const path = number === undefined ? (ESCAPED.test(name) ? name.slice(1) : name) : names[number];
      const before = taken.get(path);
      if (before && before.chosen !== chosen) {
        throw new Error(`row ${index + 1} contradicts an earlier one about "${name}"`);
      }
      if (!before) taken.set(path, { number, chosen, decision });
    });
    let elsewhere = 0;
    for (const [path, { number, chosen, decision }] of taken) {
      if (number === undefined) {
        carried.set(path, [path, chosen < 0 ? "" : classes[chosen], decision]);
        elsewhere += 1;
      } else {
        history.push([number, decisions.get(number) ?? null]);
        decisions.set(number, chosen < 0 ? ["drop", -1] : [kindOf(number, chosen), chosen]);
      }
    }
    return { here: taken.size - elsewhere, elsewhere };
  }

  async function load(file) {
    try {
      const { here, elsewhere } = take(await file.text());
      const others = elsewhere
        ? ` ${plural(elsewhere, "more is", "more are")} about images that are not on this page; ` +
          "the file that you save here repeats them."
        : "";
      tell(`${plural(here, "decision", "decisions")} taken from ${file.name}.${others}`);
      refilter();
      if (decisions.has(current)) current = view.find((number) => !decisions.has(number)) ?? current;
      store();
      draw();
    } catch (error) {
      tell(`Cannot take decisions from ${file.name}: ${error.message}.`);
    }
  }

  // ----------------------------------------------------------------------------------- panel

  function setImage(image, frame, number) {
    const source = images[number];
    frame.classList.toggle("bare", !source);
    if (source) image.src = SOURCE + source;
    else image.removeAttribute("src");
  }

  function drawProgress() {
    let kept = 0;
    let dropped = 0;
    for (const [kind] of decisions.values()) {
      kept += kind === "keep";
      dropped += kind === "drop";
    }
    const changed = decisions.size - kept - dropped;
    let expected = 0;
    score.forEach((value, number) => {
      if (!decisions.has(number)) expected += value;
    });
    const parts = [
      `${decisions.size.toLocaleString("en")} of ${total.toLocaleString("en")} reviewed`,
      `${plural(changed, "label", "labels")} changed`,
      ...(dropped ? [`${dropped.toLocaleString("en")} dropped`] : []),
      decisions.size === total
        ? "all done: save decisions.csv"
        : `expected wrong among the rest ≈ ${Math.round(expected).toLocaleString("en")}`,
    ];
    byId("progress").replaceChildren(
      element("b", {}, parts[0]),
      ...parts.slice(1).flatMap((part) => ["\u00a0· ", element("span", {}, part)]),
    );
    const meter = byId("meter");
    meter.setAttribute("aria-valuenow", decisions.size);
    meter.setAttribute("aria-valuetext", parts.join(", "));
    [kept, changed, dropped].forEach((count, place) => {
      meter.children[place].style.width = `${(100 * count) / Math.max(total, 1)}%`;
    });
    byId("save").disabled = !decisions.size && !carried.size;
    byId("save").title = unsaved ? `${plural(unsaved, "step", "steps")} since the last save` : "";
  }

  function drawClasses(number) {
    const shown = hasKeyEach ? classes.map((_, label) => label) : likely[number];
    const decision = decisions.get(number);
    const several = votes.length ? votes[number] : [];
    const inColumn = shown.length > 5 ? Math.ceil(shown.length / 2) : shown.length;
    byId("classes").style.gridTemplateRows = `repeat(${inColumn}, auto)`;
    byId("classes").replaceChildren(
      ...shown.map((label, rank) => {
        const share = probabilityOf(number, label);
        const count = several.filter((vote) => vote === label).length;
        const name = element("bdi", { class: "label" }, classes[label]);
        name.style.setProperty("--p", share < 0.02 ? 0 : share);
        const text = count ? `${count} of ${several.length} · ${percent(share)}` : percent(share);
        const button = element(
          "button", { type: "button", "data-class": label, title: classes[label] },
          element("kbd", {}, areDigits ? classes[label] : String((rank + 1) % 10)), name, element("span", { class: "percent" }, text),
        );
        button.classList.toggle("is-given", label === given[number]);
        button.classList.toggle("is-suggested", label === suggested[number]);
        button.classList.toggle("chosen", Boolean(decision) && decision[1] === label);
        return element("li", {}, button);
      }),
    );
  }

  function drawPanel() {
    byId("focus").hidden = current === undefined;
    byId("empty").hidden = current !== undefined;
    if (current === undefined) return;
    const number = current;
    const [from, to] = [classes[given[number]], classes[suggested[number]]];
    setImage(byId("image"), byId("image").parentElement, number);
    byId("image").alt = `Image ${names[number]}`;
    byId("position").textContent =
      `#${(number + 1).toLocaleString("en")} · score ${score[number].toFixed(2)}`;
    byId("name").textContent = names[number];
    byId("name").title = names[number];
    byId("given-name").textContent = byId("keep-name").textContent = from;
    byId("suggested-name").textContent = byId("take-name").textContent = to;
    byId("share").textContent = percent(probabilityOf(number, suggested[number]));
    const decision = decisions.get(number);
    byId("decision").textContent = said(number) || "Not decided yet";
    byId("decision").className = `decision ${decision ? decision[0] : ""}`;
    const letter = decision ? decision[0][0] : "";
    for (const button of document.querySelectorAll(".actions button")) {
      button.classList.toggle("chosen", button.dataset.key === letter);
    }
    document.querySelector("[data-key=u]").disabled = !history.length;
    drawClasses(number);
  }

  // ------------------------------------------------------------------------------------ list
  // Only the rows in sight exist.

  const list = byId("list");
  const canvas = byId("canvas");
  const cards = new Map();
  let columns = 1;
  let rowHeight = 1;

  function resize() {
    const style = getComputedStyle(list);
    const width = list.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    columns = Math.max(1, Math.floor((width + GAP) / (WIDTH + GAP)));
    rowHeight = Math.round((width + GAP) / columns + CAPTION);
    canvas.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
    canvas.style.gridAutoRows = `${rowHeight}px`;
    scrollToCurrent();
    drawList();
  }

  function makeCard(number) {
    const picture = element("span", { class: "picture" }, element("img", { alt: "", decoding: "async" }));
    setImage(picture.firstChild, picture, number);
    const card = element(
      "div", { role: "option", class: "card", id: `card-${number}`, title: names[number] },
      picture, element("span", { class: "caption" }), element("span", { class: "tag" }),
    );
    card.addEventListener("click", () => go(number));
    return card;
  }

  function drawCard(card, number, place) {
    const decision = decisions.get(number);
    const [from, to] = [classes[given[number]], classes[suggested[number]]];
    const changed = decision && isChange(decision);
    const goal = changed ? classes[decision[1]] : to;
    const was = element("span", {}, from);
    if (decision) was.className = decision[0] === "keep" ? "now" : "was";
    const second = element(
      "span", { class: "line" },
      element(
        "span", changed || !decision ? { class: "now" } : {},
        !decision && to === from ? "looks right" : `→ ${goal}`,
      ),
      element("span", {}, percent(probabilityOf(number, changed ? decision[1] : suggested[number]))),
    );
    card.querySelector(".caption").replaceChildren(was, second);
    card.querySelector(".tag").textContent = decision ? TAGS[decision[0]] : "";
    card.querySelector(".tag").className = `tag ${decision ? decision[0] : ""}`;
    card.querySelector(".tag").hidden = !decision;
    card.classList.toggle("decided", Boolean(decision));
    card.setAttribute("aria-selected", number === current);
    card.setAttribute("aria-posinset", place + 1);
    card.setAttribute("aria-setsize", view.length);
    const told = `${names[number]}, given ${from}, suggestion ${to}. ${said(number)}`;
    card.setAttribute("aria-label", told);
  }

  function drawList() {
    const rows = Math.ceil(view.length / columns);
    const first = Math.max(0, Math.floor(list.scrollTop / rowHeight) - 1);
    const last = Math.min(rows, Math.ceil((list.scrollTop + list.clientHeight) / rowHeight) + 1);
    canvas.style.height = `${rows * rowHeight}px`;
    canvas.style.paddingTop = `${first * rowHeight}px`;
    const shown = view.slice(first * columns, last * columns);
    const inSight = new Set(shown);
    for (const number of cards.keys()) if (!inSight.has(number)) cards.delete(number);
    const made = shown.map((number, index) => {
      if (!cards.has(number)) cards.set(number, makeCard(number));
      drawCard(cards.get(number), number, first * columns + index);
      return cards.get(number);
    });
    const before = canvas.children;
    const isSame = made.length === before.length && made.every((card, index) => card === before[index]);
    if (!isSame) canvas.replaceChildren(...made);
    if (current === undefined) list.removeAttribute("aria-activedescendant");
    else list.setAttribute("aria-activedescendant", `card-${current}`);
  }

  function scrollToCurrent() {
    const place = view.indexOf(current);
    if (place < 0) return;
    const top = Math.floor(place / columns) * rowHeight;
    const bottom = top + rowHeight + 20;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
  }

  function draw() {
    drawProgress();
    drawPanel();
    scrollToCurrent();
    drawList();
    const all = plural(total, "label", "labels");
    byId("count").textContent =
      view.length === total ? all : `${view.length.toLocaleString("en")} of ${all}`;
    byId("given").value = filter.given;
    byId("suggested").value = filter.suggested;
    const isPair = filter.given >= 0 && filter.suggested >= 0;
    byId("pair").value = isPair ? `${filter.given},${filter.suggested}` : "";
    byId("state").value = filter.state;
    byId("reset").hidden = filter.given < 0 && filter.suggested < 0 && filter.state === "all";
  }

  function announce(before) {
    if (current === undefined) return;
    const share = percent(probabilityOf(current, suggested[current]));
    byId("said").textContent =
      `${before}${view.indexOf(current) + 1} of ${view.length}: given ${classes[given[current]]}, ` +
      `suggestion ${classes[suggested[current]]}, ${share}. ${said(current)}`;
  }

  // --------------------------------------------------------------------------------- filters

  function tally(keys) {
    const counts = new Map();
    for (const key of keys) counts.set(key, (counts.get(key) ?? 0) + 1);
    return [...counts];
  }

  function fillFilters() {
    const option = (value, text) => element("option", { value }, text);
    for (const [id, labels] of [["given", given], ["suggested", suggested]]) {
      const found = tally(labels).sort((a, b) => a[0] - b[0]);
      byId(id).replaceChildren(
        option(-1, "any"),
        ...found.map(([label, count]) => option(label, `${classes[label]} (${count})`)),
      );
    }
    const pairs = tally(given.map((label, number) => `${label},${suggested[number]}`));
    pairs.sort((a, b) => b[1] - a[1]);
    byId("pair").replaceChildren(
      option("", "any"),
      ...pairs.map(([pair, count]) => {
        const [from, to] = pair.split(",").map((label) => classes[label]);
        return option(pair, `${from} → ${to} (${count})`);
      }),
    );
  }

  function onFilter(event) {
    const { id, value } = event.target;
    if (id === "state") filter.state = value;
    else if (id !== "pair") filter[id] = Number(value);
    else [filter.given, filter.suggested] = value ? value.split(",").map(Number) : [-1, -1];
    refilter();
    list.scrollTop = 0;
    draw();
    list.focus({ preventScroll: true });
    byId("said").textContent = `${plural(view.length, "label", "labels")} shown`;
  }

  // --------------------------------------------------------------------------------- chooser

  const fold = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
  const folded = classes.map(fold);
  let found = [];
  let marked = 0;

  function openChooser() {
    if (current === undefined) return;
    byId("query").value = "";
    search();
    byId("chooser").showModal();
  }

  function search() {
    const query = fold(byId("query").value.trim());
    const rank = (label) => {
      const name = folded[label];
      return name === query ? 0 : name.startsWith(query) ? 1 : 2;
    };
    const share = (label) => probabilityOf(current, label);
    found = classes.map((_, label) => label).filter((label) => folded[label].includes(query));
    found.sort((a, b) => rank(a) - rank(b) || share(b) - share(a) || a - b);
    found = found.slice(0, MOST_MATCHES);
    mark(0);
  }

  function mark(place) {
    marked = Math.max(0, Math.min(found.length - 1, place));
    byId("matches").replaceChildren(
      ...found.map((label, index) => {
        const share = likely[current].includes(label) ? percent(probabilityOf(current, label)) : "";
        const item = element(
          "li", { role: "option", id: `match-${index}`, "aria-selected": index === marked },
          element("bdi", {}, classes[label]), element("span", {}, share),
        );
        item.addEventListener("click", () => pick(index));
        return item;
      }),
    );
    byId("query").setAttribute("aria-activedescendant", found.length ? `match-${marked}` : "");
    byId("matches").children[marked]?.scrollIntoView({ block: "nearest" });
  }

  function pick(index) {
    if (found[index] === undefined) return;
    byId("chooser").close();
    choose(found[index]);
  }

  // ------------------------------------------------------------------------------------ keys

  const keys = {
    k: () => decide("keep", given[current]),
    s: () => choose(suggested[current]),
    d: () => decide("drop", -1),
    u: undo,
    o: openChooser,
    "?": () => byId("help").showModal(),
    ArrowLeft: () => move(-1),
    ArrowRight: () => move(1),
    ArrowUp: () => move(-columns),
    ArrowDown: () => move(columns),
    Home: () => move(-total),
    End: () => move(total),
  };

  function onKey(event) {
    if (document.querySelector("dialog[open]") || event.target.matches("input, select")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const isUndo = key === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey;
    if (!isUndo && (event.ctrlKey || event.metaKey || event.altKey)) return;
    let action = isUndo ? undo : Object.hasOwn(keys, key) ? keys[key] : null;
    if (/^\d$/.test(key)) {
      const rank = (Number(key) + 9) % 10;
      const label = areDigits ? classOf.get(key) : hasKeyEach ? rank : likely[current]?.[rank];
      if (label < classes.length) action = () => choose(label);
    }
    if (!action) return;
    event.preventDefault();
    if (current !== undefined || key === "u" || isUndo || key === "?") action();
  }

  document.addEventListener("keydown", onKey);
  for (const button of document.querySelectorAll("[data-key]")) {
    button.addEventListener("click", () => keys[button.dataset.key]());
  }
  byId("classes").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) choose(Number(button.dataset.class));
  });
  byId("filters").addEventListener("change", onFilter);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("reset").addEventListener("click", () => {
    Object.assign(filter, { given: -1, suggested: -1, state: "all" });
    refilter();
    draw();
    list.focus({ preventScroll: true });
  });
  byId("query").addEventListener("input", search);
  byId("query").addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) mark(marked + step);
    else if (event.key === "Enter") pick(marked);
    else return;
    event.preventDefault();
  });
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("close", () => list.focus({ preventScroll: true }));
  }
  byId("help-button").addEventListener("click", keys["?"]);
  byId("close-help").addEventListener("click", () => byId("help").close());
  byId("save").addEventListener("click", save);
  byId("load").addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", async () => {
    const [file] = byId("file").files;
    if (file) await load(file);
    byId("file").value = "";
  });
  list.addEventListener("scroll", drawList, { passive: true });
  new ResizeObserver(resize).observe(list);
  // Another tab with the same page has decided something.
  addEventListener("storage", (event) => {
    if (event.key !== KEY || !event.newValue) return;
    restore();
    refilter();
    draw();
  });

  restore();
  fillFilters();
  refilter();
  resize();
  draw();
  list.focus({ preventScroll: true });
})();
