"use strict";
// Everything is put into the page as text, never as markup.
const rows = 50;
const byId = (id) => document.getElementById(id);

function hashrate(h) {
  const units = ["H/s", "kH/s", "MH/s", "GH/s", "TH/s", "PH/s", "EH/s", "ZH/s"];
  let i = 0;
  while (i < units.length - 1 && h >= 999.5) { h /= 1000; i++; }
  const digits = h >= 99.95 || (i === 0 && Number.isInteger(h)) ? 0 : h >= 9.995 ? 1 : 2;
  return h.toFixed(digits) + " " + units[i];
}

function moment(seconds) {
  return new Date(seconds * 1000).toISOString().replace("T", " ").replace(/\.\d+Z/, " UTC");
}

function fill(body, lines, columns, none) {
  const out = lines.map((cells) => {
    const tr = document.createElement("tr");
    for (const cell of cells) {
      const td = document.createElement("td");
      if (cell.href) {
        const a = document.createElement("a");
        a.href = cell.href;
        a.textContent = cell.text;
        td.append(a);
      } else {
        td.textContent = cell.text ?? cell;
        if (cell.kind) td.className = cell.kind;
      }
      tr.append(td);
    }
    return tr;
  });
  if (out.length === 0) {
    const tr = document.createElement("tr");
    const td = document.createElement("td");
    td.colSpan = columns;
    td.textContent = none;
    tr.append(td);
    out.push(tr);
  }
  body.replaceChildren(...out);
}

async function load(path) {
  const answer = await fetch(path, { cache: "no-store" });
  if (!answer.ok) throw new Error(path + " answered " + answer.status);
  return answer.json();
}

async function refresh() {
  try {
    const [stats, miners, blocks] = await Promise.all([
      load("api/stats"), load("api/miners?limit=" + rows), load("api/blocks"),
    ]);
    byId("updated").textContent = moment(stats.updatedAt / 1000);
    byId("hashrate").textContent = hashrate(stats.hashrate);
    byId("miners").textContent = stats.minersTotal;
    byId("workers").textContent = stats.workersTotal;
    byId("round").textContent = stats.stats.roundShares ?? 0;
    byId("lastblock").textContent = stats.stats.lastBlockFound ? moment(stats.stats.lastBlockFound) : "none yet";

    const found = [];
    for (const state of ["candidates", "immature", "matured"]) {
      for (const b of blocks[state] ?? []) {
        found.push({ ...b, state: b.orphan ? "orphan" : state.replace("candidates", "candidate") });
      }
    }
    found.sort((a, b) => b.height - a.height);
    fill(byId("blockrows"), found.slice(0, rows).map((b) => [
      b.height, b.state, b.confirmations, moment(b.timestamp), Number(b.shares.toPrecision(6)), { text: b.hash, kind: "hash" },
    ]), 6, "No block yet.");

    const list = Object.entries(miners.miners).sort((a, b) => b[1].hr - a[1].hr || (a[0] < b[0] ? -1 : 1));
    fill(byId("minerrows"), list.map(([login, m]) => [
      { text: login, href: "api/accounts/" + encodeURIComponent(login) },
      hashrate(m.hr), moment(m.lastBeat), m.offline ? "silent" : "mining",
    ]), 4, "Nobody is mining.");
    byId("trouble").textContent = "";
  } catch (err) {
    byId("trouble").textContent = "(not refreshed: " + err.message + ")";
  }
}

setInterval(() => { if (!document.hidden) refresh(); }, 5000);
