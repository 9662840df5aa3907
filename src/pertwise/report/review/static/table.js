"use strict";
// What is shown. All text from a plan goes through textContent: none of it can become markup.
var shown = { now: null, open: null, sort: "rank", up: true };

function el(tag, given, children) {
  var node = document.createElement(tag);
  Object.keys(given || {}).forEach(function (key) {
    if (key === "text") node.textContent = given[key];
    else if (key === "class") node.className = given[key];
    else if (key === "on") node.addEventListener("click", given[key]);
    else if (given[key] !== null && given[key] !== false) node.setAttribute(key, given[key]);
  });
  (children || []).forEach(function (child) { if (child) node.appendChild(child); });
  return node;
}
function id(name) { return document.getElementById(name); }
function percent(share, digits) {
  return share === null || share === undefined ? "–" : (100 * share).toFixed(digits === undefined ? 2 : digits) + " %";
}
function words(kind) { return (shown.now.relations[kind] || "").toString(); }
function chip(kind) { return kind ? el("span", { class: "chip", "data-kind": kind, text: words(kind) }) : null; }

function show(now) {
  shown.now = now;
  document.title = "Review: " + now.title;
  id("simulated").hidden = !now.simulated;
  id("title").textContent = now.title;
  id("lead").textContent = now.picks.length + " of " + now.n_candidates + " candidates, " + now.n_measured +
    " measured; revision " + now.revision + "; " + now.file;
  var kinds = {};
  now.picks.forEach(function (p) { kinds[p.relation] = true; });
  var select = id("relation"), chosen = select.value;
  select.replaceChildren(el("option", { value: "", text: "all relations" }));
  Object.keys(now.relations).forEach(function (kind) {
    if (kind && kinds[kind]) select.appendChild(el("option", { value: kind, text: words(kind) }));
  });
  select.value = kinds[chosen] ? chosen : "";
  document.body.classList.toggle("untargeted", !now.pathway);
  showRows();
  showInformation();
  showCoverage();
  showLog();
  id("warned").hidden = !now.warnings.length;
  id("warnings").replaceChildren.apply(id("warnings"), now.warnings.map(function (w) { return el("li", { text: w }); }));
  var last = now.undo, undo = document.querySelector("[data-do=undo]");
  undo.disabled = !last;
  undo.title = last ? "Take back: " + last.action + " by " + last.by + " (u)" : "Nothing to take back";
  document.querySelector("[data-do=anew]").disabled = now.information.state !== "ready";
}

function showRows() {
  var now = shown.now, asked = id("filter").value.toLowerCase().split(/\s+/), kind = id("relation").value;
  var rows = now.picks.filter(function (p) {
    var text = [p.gene, p.symbol, p.full_name, p.module, words(p.relation), p.reason, p.chosen_by].join(" ").toLowerCase();
    return (!kind || p.relation === kind) && asked.every(function (w) { return text.indexOf(w) >= 0; });
  });
  var key = shown.sort;
  rows.sort(function (a, b) {
    var x = a[key], y = b[key];
    if (x === null || x === undefined || x === "") return y === null || y === undefined || y === "" ? a.rank - b.rank : 1;
    if (y === null || y === undefined || y === "") return -1;
    var order = typeof x === "number" ? x - y : String(x).localeCompare(String(y));
    return (shown.up ? order : -order) || a.rank - b.rank;
  });
  document.querySelectorAll("thead th[data-key]").forEach(function (th) {
    if (th.dataset.key === key) th.setAttribute("aria-sort", shown.up ? "ascending" : "descending");
    else th.removeAttribute("aria-sort");
  });
  var had = document.activeElement && document.activeElement.dataset.gene;
  var body = id("rows");
  body.replaceChildren();
  rows.forEach(function (p) {
    body.appendChild(row(p));
    if (shown.open === p.gene) body.appendChild(detail(p));
  });
  id("none").hidden = rows.length > 0;
  if (had !== undefined && had !== null) focusGene(had);
}

function row(p) {
  var open = shown.open === p.gene;
  var gene = el("button", {
    type: "button", class: "gene", "data-gene": p.gene, "aria-expanded": open ? "true" : "false", text: p.gene,
    on: function () { shown.open = open ? null : p.gene; showRows(); }
  });
  var sub = [p.pinned ? "pinned" : "", p.chosen_by !== "strategy" && p.chosen_by !== "pin" ? "by " + p.chosen_by : ""].filter(Boolean).join(", ");
  return el("tr", { class: p.pinned ? "pinned" : null }, [
    el("td", { class: "number wide", text: p.rank }),
    el("td", {}, [gene, sub ? el("span", { class: "tag", text: sub }) : null,
      p.flags && p.flags.length ? el("span", { class: "tag", text: "⚠", title: p.flags.join("; "), role: "img", "aria-label": p.flags.join("; ") }) : null,
      el("span", { class: "narrow" }, [chip(p.relation), el("span", { class: "soft", text: " " + p.module })])]),
    el("td", { class: "wide" }, [chip(p.relation)]),
    el("td", { class: "wide clip", title: p.module, text: p.module }),
    el("td", { class: "number wide", text: p.uncertainty_rank === null ? "–" : p.uncertainty_rank }),
    el("td", { class: "number", text: percent(p.teaches) }),
    el("td", { class: "acts" }, acts(p))
  ]);
}
function acts(p) {
  return [act("Swap", "replace", p), act("Drop", "drop", p), act(p.pinned ? "Unpin" : "Pin", p.pinned ? "unpin" : "pin", p)];
}
function act(text, what, p) {
  return el("button", { type: "button", text: text, "aria-label": text + " " + p.gene, on: function () { ask(what, p.gene); } });
}

function detail(p) {
  var parts = [];
  if (p.full_name) parts.push(el("p", {}, [el("strong", { text: p.full_name })]));
  if (p.symbol && p.symbol !== p.gene) parts.push(el("p", { class: "soft", text: "approved symbol " + p.symbol }));
  if (p.summary) parts.push(el("p", { class: "soft", text: p.summary }));
  var why = p.reason.split(". Score ");
  parts.push(el("p", { text: why[0] + (why.length > 1 ? "." : "") }));
  if (why.length > 1) parts.push(el("p", { class: "soft", text: "Score " + why.slice(1).join(". Score ") }));
  parts.push(el("h3", { text: "Evidence" }));
  parts.push(p.evidence.length ? el("ul", {}, p.evidence.map(function (e) { return el("li", { text: e }); }))
    : el("p", { class: "soft", text: p.relation && p.relation !== "unknown" ? "none is stored" : "no known relation to the target" }));
  var facts = [["Module", p.module], ["Uncertainty", p.uncertainty === null ? "" : p.uncertainty.toPrecision(3) + " (rank " + p.uncertainty_rank + ")"]];
  var known = ["rank", "gene", "symbol", "full_name", "summary", "module", "relation", "uncertainty_rank", "uncertainty",
    "utility", "reason", "evidence", "chosen_by", "pinned", "teaches"];
  Object.keys(p).forEach(function (key) {
    var value = p[key];
    if (known.indexOf(key) >= 0 || value === null || value === "") return;
    if (Array.isArray(value)) facts.push([key, value.map(String).join("; ")]);
    else if (typeof value === "object") Object.keys(value).forEach(function (k) { facts.push([k, String(value[k])]); });
    else facts.push([key, String(value)]);
  });
  shown.now.decisions.forEach(function (d) {
    if (d.about.indexOf(p.gene) >= 0 || d.added.indexOf(p.gene) >= 0 && d.action !== "made")
      facts.push([d.by + " " + d.action, d.why]);
  });
  facts = facts.filter(function (f) { return f[1]; });
  parts.push(el("dl", {}, facts.reduce(function (all, f) {
    return all.concat([el("dt", { text: f[0].replace(/_/g, " ") }), el("dd", { text: f[1] })]);
  }, [])));
  parts.push(el("div", { class: "bar" }, acts(p).concat([act("Comment", "remark", p)])));
  return el("tr", { class: "detail" }, [el("td", { colspan: "7" }, parts)]);
}

function showInformation() {
  var now = shown.now.information, text;
  if (now.state === "ready") {
    text = "This panel is expected to explain " + percent(now.panel, 1) + " of what is unexplained among all candidates.";
    if (now.changed) text += " The knowledge folder has changed since the plan was made.";
  } else text = now.state === "working" ? "Working: " + now.why + " …" : "Not known: " + now.why;
  id("information").textContent = text;
}

function showCoverage() {
  var rows = shown.now.coverage, most = Math.max.apply(null, rows.map(function (r) { return r.size + r.related.length; }).concat([1]));
  id("cover").hidden = !rows.length;
  id("coverage").replaceChildren.apply(id("coverage"), rows.map(function (r) {
    var counts = [["on", r.picked.length, "members on the panel"], ["near", r.related.length, "related picks"], ["done", r.measured, "measured"], ["free", r.open, "open"]];
    var bar = el("span", { class: "stack", "aria-hidden": "true" }, counts.map(function (c) {
      var part = el("span", { class: c[0] });
      part.style.width = 100 * c[1] / most + "%";
      return part;
    }));
    var told = counts.map(function (c) { return c[1] + " " + c[2]; }).join(", ");
    return el("li", { class: r.picked.length || r.related.length || r.measured ? null : "empty", title: told + " of " + r.size + (r.picked.length ? ": " + r.picked.concat(r.related).join(", ") : "") }, [
      el("span", { class: "module clip", text: r.module }),
      bar, el("span", { class: "soft count", text: r.picked.length + "+" + r.related.length, "aria-hidden": "true" }), el("span", { class: "hidden", text: told })]);
  }));
}

function showLog() {
  var now = shown.now, signed = now.signed;
  id("signed").className = signed && signed.current ? "signed" : "soft";
  id("signed").textContent = signed ? (signed.current ? "Signed off by " : "Changed since it was signed off by ") + signed.by + ", " + when(signed.when) + ": " + signed.why : "Not signed off.";
  id("log").replaceChildren.apply(id("log"), now.decisions.slice().reverse().map(function (d) {
    var what = d.action === "made" ? "made the panel" : d.action;
    if (d.action !== "made" && d.dropped.length) what += ", out " + d.dropped.join(", ");
    if (d.action !== "made" && d.added.length) what += ", in " + d.added.join(", ");
    if (d.about.length) what += " (" + d.about.join(", ") + ")";
    return el("li", {}, [el("strong", { text: d.by }), el("span", { text: " " + what }),
      d.why ? el("span", { text: ": " + d.why }) : null, el("span", { class: "soft", text: "  " + when(d.when) })]);
  }));
}
function when(text) { var t = new Date(text); return isNaN(t) ? text : t.toLocaleString([], { dateStyle: "medium", timeStyle: "short" }); }

function focusGene(gene) {
  var all = Array.prototype.slice.call(document.querySelectorAll("#rows button.gene"));
  var found = all.filter(function (b) { return b.dataset.gene === gene; })[0];
  if (found) found.focus();
}
