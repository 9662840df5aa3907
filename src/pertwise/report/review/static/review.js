"use strict";
// What is done: one dialog for every change, keys, and looking whether somebody else changed it.
var asking = null, seen = "", timer = 0, turn = 0;
var TITLES = {
  replace: ["Swap", "Choose what comes in its place."], drop: ["Drop", "It leaves the panel and is not offered again."],
  add: ["Add a gene", "It comes to the end of the panel, pinned."], pin: ["Pin", "It stays when the rest is chosen anew."],
  unpin: ["Unpin", "It may go when the rest is chosen anew."], remark: ["Comment", "It joins the record and changes nothing."],
  sign: ["Sign off", "You stand for this panel as it is now."], undo: ["Undo", ""],
  anew: ["Re-plan around my pins", "Pinned picks stay, what people took off stays off, every other place is chosen again."]
};

function get(path) { return fetch(path, { cache: "no-store" }).then(answer); }
function post(path, value) {
  return fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) }).then(answer);
}
function answer(reply) {
  if ((reply.headers.get("content-type") || "").indexOf("json") < 0)
    return reply.text().then(function (text) { throw { error: text }; });
  return reply.json().then(function (value) { if (!reply.ok) throw value; return value; });
}
function notice(text) { id("notice").hidden = !text; if (id("notice").textContent !== text) id("notice").textContent = text; }
function say(text) { id("said").textContent = text; }

function look() {
  get("api/state?version=" + encodeURIComponent(seen)).then(function (now) {
    notice("");
    if (now.picks) take(now);
  }, function (problem) {
    notice(problem.error ? problem.error : "The server has ended. What was saved is on the disk; start pertwise review again and open its new address.");
  }).then(function () { timer = setTimeout(look, document.hidden ? 15000 : 3000); });
}
function take(now) {
  var before = shown.now;
  seen = now.version;
  show(now);
  if (!id("by").value) id("by").value = now.by;
  if (before && before.revision !== now.revision) {
    var last = now.decisions[now.decisions.length - 1];
    say("Revision " + now.revision + ": " + last.by + " " + last.action);
  }
  if (asking && id("change").open && asking.version !== now.version) preview();
}

function ask(what, gene) {
  if (!shown.now) return;
  if (what === "help") return id("help").showModal();
  var button = document.querySelector("[data-do=" + what + "]");
  if (button && button.disabled && !gene) return say(button.title);
  var last = shown.now.undo;
  asking = { do: what, gene: gene || "", new: "" };
  id("change-head").textContent = TITLES[what][0] + (gene ? " " + gene : "");
  id("change-words").textContent = what === "undo" ? "Takes back: " + last.by + " " + last.action + ", " + last.why : TITLES[what][1];
  id("choose").hidden = !(what === "replace" || what === "add");
  id("search").value = "";
  id("why").value = "";
  id("trouble").textContent = "";
  id("effect").replaceChildren();
  id("save").disabled = false;
  id("found").replaceChildren();
  if (!id("choose").hidden) { id("order").value = shown.now.information.state === "ready" ? "information" : "utility"; search(); }
  else preview();
  id("change").showModal();
  (id("choose").hidden ? id("why") : id("search")).focus();
}

function search() {
  var mine = ++turn;
  var path = "api/candidates?q=" + encodeURIComponent(id("search").value) + "&instead=" + encodeURIComponent(asking.gene) + "&order=" + id("order").value;
  id("count").textContent = "Searching …";
  get(path).then(function (found) {
    if (mine !== turn) return;
    id("found").replaceChildren.apply(id("found"), found.rows.map(function (r, i) {
      var input = el("input", { type: "radio", name: "new", value: r.gene });
      input.checked = r.gene === asking.new;
      input.addEventListener("change", function () { asking.new = r.gene; id("trouble").textContent = ""; preview(); });
      var told = [r.uncertainty_rank ? "unc. rank " + r.uncertainty_rank : "", r.adds === null || r.adds === undefined ? "" : "adds " + percent(r.adds)].filter(Boolean).join(", ");
      return el("label", {}, [input, el("span", { class: "gene", text: r.gene }), chip(r.relation),
        el("span", { class: "soft", text: r.module || "" }), el("span", { class: "soft told", text: told }),
        r.why ? el("span", { class: "soft all", text: r.why }) : null]);
    }));
    id("count").textContent = found.total ? found.rows.length + " of " + found.total + " candidates" : "No candidate matches.";
  }, trouble);
}

function preview() {
  var mine = ++turn, box = id("effect");
  asking.version = seen;
  if (["replace", "drop", "add", "undo", "anew"].indexOf(asking.do) < 0 || (!id("choose").hidden && !asking.new)) return;
  if (asking.do === "anew") box.replaceChildren(el("p", { class: "soft", text: "Choosing again; this takes up to a minute for a whole genome …" }));
  post("api/preview", { do: asking.do, gene: asking.gene, new: asking.new }).then(function (found) {
    if (mine !== turn) return;
    var lines = [];
    if (found.out.length || found.in.length)
      lines.push(el("p", { text: "Out: " + (found.out.join(", ") || "–") + ". In: " + (found.in.join(", ") || "–") + "." }));
    if (found.after !== undefined) {
      var change = found.after - found.before, part = found.before ? 100 * change / found.before : 0;
      lines.push(el("p", { class: change < 0 ? "cost" : "gain", text: "Expected information " + percent(found.before) + " → " + percent(found.after) + " of what is unexplained (" + (change < 0 ? "costs " : "gains ") + Math.abs(part).toFixed(1) + " % of what the panel tells)." }));
    } else lines.push(el("p", { class: "soft", text: "What it costs in expected information is not known: " + shown.now.information.why + "." }));
    found.coverage.forEach(function (c) {
      lines.push(el("p", { class: c.empty ? "cost" : null, text: c.module + ": " + c.before.length + " → " + c.after.length + " on the panel" + (c.empty ? "; nothing left measured or picked here" : "") }));
    });
    if (shown.now.coverage.length && !found.coverage.length) lines.push(el("p", { class: "soft", text: "Coverage stays as it is." }));
    box.replaceChildren.apply(box, lines);
  }, function (problem) {
    // Beside the preview, not in the place of what saving said.
    if (mine === turn) box.replaceChildren(el("p", { class: "cost", text: problem.error || "The server does not answer." }));
  });
}
function trouble(problem) { id("trouble").textContent = problem.error || "The server does not answer; what you wrote is still here."; }

id("form").addEventListener("submit", function (event) {
  event.preventDefault();
  if (!id("choose").hidden && !asking.new) { id("trouble").textContent = "Choose a candidate first."; return; }
  if (!id("why").value.trim() || !id("by").value.trim()) { id("trouble").textContent = "A reason and a name are needed: the plan records them."; return; }
  id("save").disabled = true;
  id("trouble").textContent = "";
  say("Saving …");
  post("api/change", { do: asking.do, gene: asking.gene, new: asking.new, by: id("by").value, why: id("why").value, version: seen }).then(function (now) {
    try { localStorage.setItem("by", id("by").value); } catch (e) { /* private windows may refuse */ }
    var back = asking.new || asking.gene;
    id("change").close();
    take(now);
    focusGene(back);
  }, function (problem) {
    id("save").disabled = false;
    trouble(problem);
    if (problem.now) take(problem.now);
  });
});
id("cancel").addEventListener("click", function () { id("change").close(); });
id("change").addEventListener("close", function () {
  // The event comes late: the dialog may be open again, for the next question.
  if (!id("change").open) { asking = null; turn++; }
});
var typing = 0;
id("search").addEventListener("input", function () { clearTimeout(typing); typing = setTimeout(search, 200); });
id("search").addEventListener("keydown", function (event) {
  if (event.key !== "Enter" && event.key !== "ArrowDown") return;
  event.preventDefault();
  var first = document.querySelector("#found input:checked") || document.querySelector("#found input");
  if (first) { first.focus(); if (event.key === "Enter") first.click(); }
});
id("order").addEventListener("change", search);
id("filter").addEventListener("input", showRows);
id("relation").addEventListener("change", showRows);
document.querySelectorAll("[data-do]").forEach(function (button) {
  button.addEventListener("click", function () { ask(button.dataset.do); });
});
document.querySelectorAll("thead th[data-key]").forEach(function (th) {
  th.firstElementChild.addEventListener("click", function () {
    shown.up = shown.sort === th.dataset.key ? !shown.up : th.dataset.key !== "teaches";
    shown.sort = th.dataset.key;
    showRows();
  });
});
document.addEventListener("keydown", function (event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  var on = document.activeElement, gene = on && on.dataset.gene;
  if (on && /^(INPUT|SELECT|TEXTAREA)$/.test(on.tagName)) {
    if (event.key === "Escape") { on.value = ""; showRows(); on.blur(); }
    return;
  }
  var all = Array.prototype.slice.call(document.querySelectorAll("#rows button.gene"));
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    var at = all.indexOf(on) + (event.key === "ArrowDown" ? 1 : -1);
    var next = all[Math.max(0, Math.min(all.length - 1, at))];
    if (next) { event.preventDefault(); next.focus(); }
    return;
  }
  var pick = gene && shown.now.picks.filter(function (p) { return p.gene === gene; })[0];
  var of_pick = { s: "replace", d: "drop", p: pick && pick.pinned ? "unpin" : "pin", m: "remark" };
  var of_panel = { a: "add", r: "anew", u: "undo", c: "remark", o: "sign", "?": "help" };
  if (event.key === "/") { event.preventDefault(); id("filter").focus(); }
  else if (pick && of_pick[event.key]) { event.preventDefault(); ask(of_pick[event.key], gene); }
  else if (of_panel[event.key]) { event.preventDefault(); ask(of_panel[event.key]); }
});
document.addEventListener("visibilitychange", function () { if (!document.hidden) { clearTimeout(timer); look(); } });
try { id("by").value = localStorage.getItem("by") || ""; } catch (e) { /* private windows may refuse */ }
look();
