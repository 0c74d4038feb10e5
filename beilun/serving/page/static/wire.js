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
    // Whoever was signed out elsewhere, or whose token is gone, has lost the socket for good.
    this.onLost = async () => {
      try {
        const said = await (await fetch("/sign-in/state")).json();
        if (said.signed_in) return;
        const next = encodeURIComponent(location.pathname + location.search);
        location.assign(`/sign-in?next=${next}`);
      } catch {
        // The server is away: nobody knows.
      }
    };
    // The socket is made once everything on the page is there.
    this.waiting = setInterval(() => {
      if (!window.socket) return;
      clearInterval(this.waiting);
      window.socket.on("disconnect", this.onLost);
      window.socket.on("connect_error", this.onLost);
    }, 100);
    window.addEventListener("keydown", this.onKey);
    window.addEventListener("click", this.onClick);
    window.addEventListener("popstate", this.onPop);
    document.documentElement.lang = this.language;
    document.querySelectorAll("#popup span").forEach((span, i) => (span.textContent = this.lost[i]));
  },
  unmounted() {
    clearInterval(this.waiting);
    window.socket?.off("disconnect", this.onLost);
    window.socket?.off("connect_error", this.onLost);
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
