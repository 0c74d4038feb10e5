// Keys, the browser's address, cookies, and the texts that NiceGUI shows while the server is away.
export default {
  template: "<span hidden></span>",
  props: { keys: String, lost: Array, language: String },
  mounted() {
    this.far = ["ArrowLeft", "ArrowRight", "Home", "End"];
    this.onKey = (e) => {
      if (e.ctrlKey || e.metaKey || e.altKey) return;
      const at = e.target;
      if (at.isContentEditable || ["INPUT", "SELECT", "TEXTAREA"].includes(at.tagName)) return;
      if (e.key === " " && ["BUTTON", "A"].includes(at.tagName)) return;
      const key = e.key.length === 1 ? e.key.toLowerCase() : e.key;
      if (!this.far.includes(key) && !(key.length === 1 && this.keys.includes(key))) return;
      e.preventDefault();
      this.$emit("key", { key, shift: e.shiftKey });
    };
    // A button that was pressed with the mouse gives the keyboard back.
    this.onClick = (e) => {
      if (e.detail > 0) e.target.closest?.("button, a")?.blur();
    };
    this.onPop = () =>
      this.$emit("place", {
        path: location.pathname,
        query: Object.fromEntries(new URLSearchParams(location.search)),
      });
    window.addEventListener("keydown", this.onKey);
    window.addEventListener("click", this.onClick);
    window.addEventListener("popstate", this.onPop);
    document.documentElement.lang = this.language;
    document.querySelectorAll("#popup span").forEach((span, i) => (span.textContent = this.lost[i]));
  },
  unmounted() {
    window.removeEventListener("keydown", this.onKey);
    window.removeEventListener("click", this.onClick);
    window.removeEventListener("popstate", this.onPop);
  },
  methods: {
    go(address) {
      if (address !== location.pathname + location.search) history.pushState({}, "", address);
      document.querySelector(".b-view")?.scrollTo(0, 0);
    },
    replace(address) {
      history.replaceState({}, "", address);
    },
    signOut() {
      fetch("/sign-out", { method: "POST" }).then(() => location.assign("/sign-in"));
    },
    keep(name, value, seconds) {
      document.cookie = `${name}=${value}; path=/; max-age=${seconds}; SameSite=Strict`;
    },
  },
};
