// The map of the plant: drawn once as SVG by the server, brought up to date by `show`.
const SVG = "http://www.w3.org/2000/svg";
const make = (tag, cls, parent) => {
  const made = document.createElementNS(SVG, tag);
  if (cls) made.setAttribute("class", cls);
  parent.appendChild(made);
  return made;
};

export default {
  template: `<div @click="open" @keydown.enter="open"></div>`,
  props: { svg: String },
  mounted() {
    this.$el.innerHTML = this.svg;
    const by = (attribute) =>
      new Map([...this.$el.querySelectorAll(`[data-${attribute}]`)].map((e) => [e.dataset[attribute], e]));
    this.stations = by("asset");
    this.areas = by("area");
    this.vehicles = new Map();
    this.layer = this.$el.querySelector(".m-vehicles");
    this.trails = this.$el.querySelector(".m-trails");
  },
  methods: {
    open(e) {
      const hit = e.target.closest("[data-asset]");
      if (hit) this.$emit("open", hit.dataset.asset);
    },
    show(news) {
      for (const [path, [letter, state, text]] of Object.entries(news.states ?? {})) {
        const station = this.stations.get(path);
        if (!station) continue;
        station.dataset.state = state;
        station.style.setProperty("--state", state ? `var(--state-${state})` : "var(--rule)");
        station.querySelector(".m-letter").textContent = letter;
        station.querySelector("title").textContent = text;
      }
      for (const [name, [text, how]] of Object.entries(news.links ?? {})) {
        const area = this.areas.get(name);
        if (!area) continue;
        area.dataset.link = how;
        area.querySelector(".m-link").textContent = text;
      }
      if (news.vehicles) this.move(news.vehicles);
    },
    move(vehicles) {
      const seen = new Set();
      for (const each of vehicles) {
        seen.add(each.path);
        const known = this.vehicles.get(each.path) ?? this.add(each);
        const { body, turn, fill, trail, title, load } = known;
        // A jump in time is no journey: it is not drawn as one.
        const far = Math.hypot(each.x - known.x, each.y - known.y) > 60;
        body.classList.toggle("m-jump", far);
        known.x = each.x;
        known.y = each.y;
        body.style.transform = `translate(${each.x}px, ${each.y}px)`;
        turn.setAttribute("transform", `rotate(${each.turn})`);
        body.dataset.doing = each.doing;
        fill.setAttribute("width", (22 * each.battery).toFixed(1));
        fill.dataset.low = each.battery < 0.2;
        load.style.display = each.load ? "" : "none";
        title.textContent = each.text;
        trail.setAttribute("points", each.trail);
      }
      for (const [path, { body, trail }] of this.vehicles) {
        if (seen.has(path)) continue;
        body.remove();
        trail.remove();
        this.vehicles.delete(path);
      }
    },
    add(each) {
      const trail = make("polyline", "m-trail", this.trails);
      const body = make("g", "m-vehicle", this.layer);
      body.dataset.asset = each.path;
      const title = make("title", "", body);
      const turn = make("g", "", body);
      make("path", "m-body", turn).setAttribute("d", "M-13 -9H7L14 0L7 9H-13Z");
      const load = make("rect", "m-load", turn);
      for (const [k, v] of Object.entries({ x: -10, y: -6, width: 14, height: 12, rx: 2 })) load.setAttribute(k, v);
      const stop = make("text", "m-stop", body);
      stop.textContent = "!";
      stop.setAttribute("x", 22);
      stop.setAttribute("y", 5);
      const frame = make("rect", "m-battery", body);
      const fill = make("rect", "m-charge", body);
      for (const [one, x, wide, high] of [[frame, -12, 24, 6], [fill, -11, 22, 4]]) {
        one.setAttribute("x", x);
        one.setAttribute("y", one === frame ? 13 : 14);
        one.setAttribute("width", wide);
        one.setAttribute("height", high);
      }
      const name = make("text", "m-name", body);
      name.textContent = each.name;
      name.setAttribute("y", -15); // a station it stands at has its own name below
      const known = { body, turn, fill, trail, title, load, x: each.x, y: each.y };
      this.vehicles.set(each.path, known);
      return known;
    },
  },
};
