import Foundation

/// The trace as one HTML page that needs nothing else: both rings, and every step.
enum TracePage {
  static func html(_ steps: [TraceStep], title: String) throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    let data = String(decoding: try encoder.encode(steps), as: UTF8.self)
      // Nothing in a string may end the script.
      .replacingOccurrences(of: "<", with: "\\u003c")
    let name = title.replacingOccurrences(of: "&", with: "&amp;")
      .replacingOccurrences(of: "<", with: "&lt;")
    return page.replacingOccurrences(of: "TITLE", with: name)
      .replacingOccurrences(of: "STEPS", with: data)
  }

  private static let page = """
    <!DOCTYPE html>
    <html lang="en"><head><meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1"><title>ixy trace: TITLE</title>
    <style>
      body { font: 14px/1.4 system-ui, sans-serif; margin: 0 auto; padding: 1em; max-width: 76em; color: #222; }
      h1 { font-size: 1.3em; margin: 0; }
      nav { margin: .6em 0; display: flex; gap: .5em; align-items: center; }
      nav input { flex: 1; }
      main { display: grid; grid-template-columns: 1fr 1fr; gap: 1em; }
      figure { margin: 0; }
      @media (max-width: 40em) { main { grid-template-columns: 1fr; } }
      #now { background: #f4f4f0; border-left: 4px solid #357; padding: .6em 1em; min-height: 8.4em; overflow-wrap: anywhere; }
      #list { height: 18em; overflow: auto; font: 12px/1.5 ui-monospace, monospace; white-space: pre; }
      #list div { padding: 0 .5em; cursor: pointer; }
      #list .note { font-weight: bold; margin-top: .4em; white-space: normal; }
      #list .on { background: #357; color: #fff; }
      svg { width: 100%; height: auto; }
      svg text { font: 12px system-ui, sans-serif; text-anchor: middle; }
      .driver { fill: #e4e4de; } .card { fill: #7aa6d8; } .done { fill: #e9a23b; }
      .new { stroke: #c00; stroke-width: 2; }
      .key span { display: inline-block; padding: 0 .6em; margin-right: .4em; border-radius: .3em; }
      code { font: 12px ui-monospace, monospace; }
    </style></head><body>
    <h1>A driver and its card: TITLE</h1>
    <p>Every access to a register while the driver brings the card up, sends frames and receives them; and the two rings
      of descriptors that both share. <b>Head</b> is where the card is, <b>tail</b> where the driver lets it go.</p>
    <nav><button id="back">&#9664; back</button><button id="next">next &#9654;</button>
      <button id="play">play</button><input id="slide" type="range" min="0" value="0">
      <span id="count"></span></nav>
    <div id="now"></div>
    <p class="key">Descriptors: <span style="background:#7aa6d8">the card's</span>
      <span style="background:#e9a23b">done by the card, for the driver to look at</span>
      <span style="background:#e4e4de">the driver's</span>
      outlined in red: changed in this step. The arrow keys step, too.</p>
    <main><figure><svg id="rx" viewBox="-20 -10 440 420"></svg></figure>
      <figure><svg id="tx" viewBox="-20 -10 440 420"></svg></figure></main>
    <div id="list"></div>
    <script>
    const steps = STEPS;
    const $ = id => document.getElementById(id);
    // The rings after each step: every one keeps what the steps before it have changed.
    const states = [];
    let last = { rx: null, tx: null };
    for (const s of steps) {
      const now = {};
      for (const r of ["rx", "tx"]) {
        const old = last[r], change = s[r];
        if (!change && !old) { now[r] = null; continue; }
        const ring = { ...old, ...change, bytes: old ? old.bytes.slice() : [], seen: new Set(old && old.seen),
                       changed: new Set() };
        for (const d of change ? change.changed : []) {
          ring.bytes[d.number] = d.bytes; ring.changed.add(d.number); ring.seen.delete(d.number);
        }
        // What is done stays so in memory; the driver has taken it.
        if (s.collected) ring.bytes.forEach((_, i) => ring.seen.add(i));
        now[r] = ring;
      }
      states.push(now); last = now;
    }
    const hasRings = steps.some(s => s.rx || s.tx);
    // Bit 0 of the status: Descriptor Done, in word 2 of a receive and word 3 of a transmit descriptor.
    const isDone = (r, bytes) => bytes && (parseInt(bytes.substr(r == "rx" ? 16 : 24, 2), 16) & 1);
    function owner(r, ring, i) {
      const ahead = (i - ring.head + ring.size) % ring.size;
      if (ahead < (ring.tail - ring.head + ring.size) % ring.size) return "card";
      return !ring.seen.has(i) && isDone(r, ring.bytes[i]) ? "done" : "driver";
    }
    function draw(r, ring) {
      const name = r == "rx" ? "receive ring" : "transmit ring";
      if (!ring) {
        $(r).innerHTML = `<text x="200" y="200">${name}: ${hasRings ? "not there yet" : "not shown"}</text>`;
        return;
      }
      const at = (i, radius) => {
        const a = 2 * Math.PI * i / ring.size - Math.PI / 2;
        return [200 + radius * Math.cos(a), 200 + radius * Math.sin(a)];
      };
      let out = "";
      for (let i = 0; i < ring.size; i++) {
        const p = [at(i - .45, 165), at(i + .45, 165), at(i + .45, 125), at(i - .45, 125)];
        const mark = ring.changed.has(i) && ring.changed.size < ring.size ? " new" : "";
        out += `<polygon class="${owner(r, ring, i)}${mark}" points="${p.join(" ")}">` +
               `<title>descriptor ${i}: ${ring.bytes[i]}</title></polygon>`;
      }
      const arrow = (i, inner, label) => {
        const [x, y] = at(i - .5, inner ? 98 : 184), [a, b] = at(i - .5, inner ? 122 : 168);
        const [u, v] = at(i - .5, inner ? 80 : 202);
        return `<line x1="${x}" y1="${y}" x2="${a}" y2="${b}" stroke="#222" stroke-width="2"/>` +
               `<text x="${u}" y="${v + 4}">${label}</text>`;
      };
      out += arrow(ring.head, true, "head") + arrow(ring.tail, false, "tail");
      out += `<text x="200" y="195">${name}</text>` +
             `<text x="200" y="213">head ${ring.head}, tail ${ring.tail}</text>`;
      $(r).innerHTML = out;
    }
    const escape = t => (t || "").replace(/&/g, "&amp;").replace(/</g, "&lt;");
    const label = s => s.kind == "note" ? s.text
      : `${s.kind.padEnd(5)} ${(s.register || "").padEnd(13)} ${s.value}  ${s.fields || ""}`;
    let current = 0;
    function show(i) {
      current = Math.max(0, Math.min(steps.length - 1, i));
      const s = steps[current];
      let text = s.kind == "note" ? `<b>${escape(s.text)}</b>`
        : `<b>${s.kind} ${escape(s.register)}</b> at ${s.offset}: <code>${s.value}</code>` +
          (s.times ? `, ${s.times} times` : "") + `<br>${escape(s.text)}` + (s.section ? `, ${escape(s.section)}` : "") +
          `<br>${escape(s.fields) || "no field is set, or changed"}` +
          (s.line ? `<br>by <code>${escape(s.line)}</code>` : "");
      for (const r of ["rx", "tx"]) if (s[r] && s[r].changed.length && s[r].changed.length < s[r].size)
        text += `<br>${r} ` + s[r].changed.slice(0, 3).map(d =>
          `descriptor ${d.number}: <code>${d.bytes}</code>`).join(", ") +
          (s[r].changed.length > 3 ? " ..." : "");
      $("now").innerHTML = text;
      $("slide").value = current;
      $("count").textContent = `${current + 1} of ${steps.length}`;
      for (const r of ["rx", "tx"]) draw(r, states[current][r]);
      document.querySelectorAll("#list .on").forEach(e => e.classList.remove("on"));
      const line = $("list").children[current];
      line.classList.add("on");
      $("list").scrollTop = line.offsetTop - $("list").offsetTop - 100;
      history.replaceState(null, "", "#" + (current + 1));
    }
    steps.forEach((s, i) => {
      const line = document.createElement("div");
      line.textContent = label(s);
      line.className = s.kind;
      line.onclick = () => show(i);
      $("list").append(line);
    });
    $("slide").max = steps.length - 1;
    $("slide").oninput = () => show(+$("slide").value);
    $("back").onclick = () => show(current - 1);
    $("next").onclick = () => show(current + 1);
    let timer = null;
    $("play").onclick = () => {
      if (timer) { clearInterval(timer); timer = null; $("play").textContent = "play"; return; }
      $("play").textContent = "stop";
      timer = setInterval(() => {
        if (current == steps.length - 1) $("play").onclick(); else show(current + 1);
      }, 600);
    };
    document.onkeydown = e => {
      if (e.key == "ArrowRight") show(current + 1);
      if (e.key == "ArrowLeft") show(current - 1);
    };
    show((parseInt(location.hash.slice(1)) || 1) - 1);
    </script></body></html>
    """
}
