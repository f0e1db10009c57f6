"use strict";
// One page of one stack. Everything comes from its own server; text from models and clusters is only ever set as text.
const $ = (id) => document.getElementById(id);
const cards = new Map(); // service -> its section
let running = null; // AbortController of the question on its way
let clock = null; // {at, ...}: what the server last said, and when

const ms = (value) => (value == null ? "–" : value < 10000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`);
const gib = (value) => `${value.toFixed(1)} GiB`;
const dollars = (value, digits) => (value == null ? "–" : `$${value.toFixed(digits)}`);

function span(seconds) {
  const minutes = Math.floor(Math.abs(seconds) / 60);
  const hours = Math.floor(minutes / 60);
  const text = hours >= 48 ? `${Math.floor(hours / 24)} d ${hours % 24} h` : hours ? `${hours} h ${minutes % 60} min` : `${minutes} min`;
  return seconds < 0 ? `over by ${text}` : text;
}

async function read(path) {
  const response = await fetch(path);
  const body = await response.json().catch(() => ({ problem: `the server responds ${response.status}` }));
  if (!response.ok) throw new Error(body.problem || `the server responds ${response.status}`);
  return body;
}

function card(service) {
  const section = $("service").content.firstElementChild.cloneNode(true);
  const part = (name) => section.querySelector(`.${name}`);
  section.dataset.service = service.name;
  part("name").textContent = service.name;
  part("what").textContent = [service.precision, `${service.gpus}x ${service.gpu || "GPU"}`, service.instance,
    service.usdPerHour == null ? "" : `${dollars(service.usdPerHour, 2)}/h`].filter(Boolean).join(" · ");
  const plans = section.querySelectorAll(".plan");
  plans[0].textContent = service.ttftMs == null ? "" : `plan ${ms(service.ttftMs)}`;
  plans[1].textContent = service.tpotMs == null ? "" : `plan ${ms(service.tpotMs)}`;
  plans[2].textContent = service.tpotMs ? `plan ${(1000 / service.tpotMs).toFixed(1)}` : "";
  part("answer").setAttribute("aria-label", `answer of ${service.name}`);
  memory(section, service, null);
  const entry = service.entry;
  part("entry").textContent = entry
    ? `registry: ${entry.model} ${entry.version} · ${entry.uri} · ${Object.entries(entry.facts).map(([name, value]) => `${name.replaceAll("_", " ")} ${value.slice(0, 60)}`).join(" · ")}`
    : "registry: no entry behind this service";
  part("entry").title = part("entry").textContent;
  return section;
}

function memory(section, service, live) {
  if (!service.memory) return;
  const planned = service.memory;
  const kv = live?.engine?.kvGib ?? planned.kv;
  const used = live?.engine?.kvUsage;
  const dcgm = live?.gpuMemory;
  const parts = [
    ["weights", planned.weights, `weights ${gib(planned.weights)}${service.offloadGib ? ` (+ ${gib(service.offloadGib)} in node memory)` : ""}`],
    ["kv", kv, `KV cache ${gib(kv)}${used == null ? "" : `, ${(100 * used).toFixed(0)} % used`}`],
    ["reserve", planned.reserve, `working memory ${gib(planned.reserve)}`],
  ];
  const piece = (name, size) => {
    const element = document.createElement("i");
    element.className = name;
    if (size != null) element.style.width = `${(100 * size) / planned.visible}%`;
    return element;
  };
  section.querySelector(".bar").replaceChildren(...parts.map(([name, size]) => piece(name, size)));
  const rest = dcgm ? `DCGM: ${gib(dcgm.usedGib)} used, ${gib(dcgm.freeGib)} free` : `free ${gib(planned.free)} (planned)`;
  const legend = section.querySelector(".legend");
  legend.replaceChildren("each GPU: ", ...parts.flatMap(([name, , text]) => [piece(name), `${text} · `]), rest);
  section.querySelector(".memory").setAttribute("aria-label", legend.textContent);
}

function tick() {
  if (!clock) return;
  const passed = (performance.now() - clock.at) / 1000;
  $("up").textContent = clock.upSeconds == null ? "–" : span(clock.upSeconds + passed);
  $("cost").textContent = clock.usd == null ? "–" : dollars(clock.usd + (passed / 3600) * clock.usdPerHour, 2);
  $("rate").textContent = dollars(clock.usdPerHour, 2);
  $("left").textContent = clock.leftSeconds == null ? "no end" : span(clock.leftSeconds - passed);
}

async function watch(services) {
  for (;;) {
    try {
      const live = await read("api/live");
      clock = { ...live.clock, at: performance.now() };
      for (const service of services) {
        const now = live.services[service.name];
        const section = cards.get(service.name);
        section.querySelector(".state").textContent = !now ? "is not in the cluster any more" : now.ready ? "" : `not ready: ${now.problem}`;
        memory(section, service, now);
      }
      if ($("problem").dataset.from === "live") problem("");
    } catch (error) {
      problem(`what is shown may be old: ${error.message}`, "live");
    }
    tick();
    await new Promise((resume) => setTimeout(resume, document.hidden ? 15000 : 3000));
  }
}

function problem(text, from = "") {
  $("problem").textContent = text;
  $("problem").dataset.from = text ? from : "";
}

function show(line) {
  const section = cards.get(line.service);
  const answer = section.querySelector(".answer");
  if (line.text) {
    if (!answer.dataset.firstAt) answer.dataset.firstAt = performance.timeOrigin + performance.now();
    const follow = answer.scrollTop + answer.clientHeight >= answer.scrollHeight - 8;
    answer.classList.remove("waiting");
    answer.append(line.text);
    if (follow) answer.scrollTop = answer.scrollHeight;
  }
  if (line.tokens != null) {
    section.querySelector(".ttft").textContent = ms(line.ttftMs);
    section.querySelector(".tpot").textContent = ms(line.tpotMs);
    section.querySelector(".rate").textContent = line.tokensPerSecond == null ? "–" : line.tokensPerSecond.toFixed(1);
    section.querySelector(".usd").textContent = dollars(line.usd, 5);
    section.querySelector(".tokens").textContent = `${line.tokens} tokens`;
  }
  if (line.done) {
    answer.classList.remove("waiting");
    section.dataset.done = line.problem ? "broken" : "whole";
    if (line.problem) broken(answer, line.problem);
  }
}

function broken(answer, why) {
  const note = document.createElement("span");
  note.className = "broken";
  note.textContent = why;
  answer.append(note);
}

async function ask(event) {
  event?.preventDefault();
  if (running) return;
  const prompt = $("prompt").value;
  if (!prompt.trim()) return problem("the prompt is empty");
  problem("");
  running = new AbortController();
  $("send").disabled = true;
  $("stop").disabled = false;
  for (const section of cards.values()) {
    const answer = section.querySelector(".answer");
    answer.replaceChildren();
    answer.classList.add("waiting");
    delete answer.dataset.firstAt;
    delete section.dataset.done;
    for (const name of ["ttft", "tpot", "rate", "usd"]) section.querySelector(`.${name}`).textContent = "–";
    section.querySelector(".tokens").textContent = "";
  }
  let why = "the connection to the server broke off";
  try {
    const response = await fetch("api/ask", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ prompt, services: [...cards.keys()] }),
      signal: running.signal,
    });
    if (!response.ok) throw new Error((await response.json().catch(() => ({}))).problem || `the server responds ${response.status}`);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; ;) {
      const { done, value } = await reader.read();
      if (done) break;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      lines.forEach((line) => show(JSON.parse(line)));
    }
  } catch (error) {
    why = running.signal.aborted ? "stopped" : error.message;
    if (!running.signal.aborted) problem(why);
  }
  for (const section of cards.values()) {
    if (section.dataset.done) continue;
    section.dataset.done = "broken";
    section.querySelector(".answer").classList.remove("waiting");
    broken(section.querySelector(".answer"), why);
  }
  running = null;
  $("send").disabled = false;
  $("stop").disabled = true;
}

function switchTheme() {
  const dark = document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.documentElement.dataset.theme = dark === "dark" ? "light" : "dark";
}

$("ask").addEventListener("submit", ask);
$("stop").addEventListener("click", () => running?.abort());
$("theme").addEventListener("click", switchTheme);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
  if (event.altKey && event.key.toLowerCase() === "t") switchTheme();
  if (event.target === $("prompt") && event.key === "Enter" && !event.shiftKey && !event.isComposing) ask(event);
});

(async () => {
  try {
    const stack = await read("api/stack");
    $("stack").textContent = `stack ${stack.stack} on ${stack.platform}`;
    $("simulated").textContent = [
      stack.simulated ? "Simulated engine: answers are made up, and the times are the plan’s, replayed." : "",
      stack.bills ? "" : "Nothing bills here: prices are those of the instances that the nodes imitate.",
    ].join(" ").trim();
    for (const service of stack.services) {
      cards.set(service.name, card(service));
      $("services").append(cards.get(service.name));
    }
    document.body.dataset.loaded = "yes";
    setInterval(tick, 1000);
    watch(stack.services);
  } catch (error) {
    problem(error.message);
  }
})();
