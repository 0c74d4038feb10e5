// A recording from start to end as one line. Drag or click it to seek; times are in seconds.
export default {
  template: `
    <div class="b-line" role="slider" tabindex="0" :aria-label="label" aria-valuemin="0"
         aria-valuemax="1000" @pointerdown="down" @pointermove="move" @pointerup="up"
         @pointercancel="up">
      <div class="b-track"></div>
      <div v-for="mark in marks" class="b-mark" :title="mark.text" :style="span(mark)"></div>
      <div class="b-done" ref="done"></div>
      <div class="b-thumb" ref="thumb"></div>
    </div>`,
  props: { label: String, marks: Array },
  data: () => ({ start: 0, end: 1 }),
  methods: {
    span(mark) {
      const size = this.end - this.start || 1;
      const left = (Math.max(mark.from, this.start) - this.start) / size;
      const right = (Math.min(mark.to, this.end) - this.start) / size;
      return { left: `${left * 100}%`, width: `${Math.max(0.2, (right - left) * 100)}%` };
    },
    place(start, end, t, text) {
      this.start = start;
      this.end = end;
      this.$el.setAttribute("aria-valuetext", text);
      if (!this.dragging) this.draw(t);
    },
    draw(t) {
      const size = this.end - this.start;
      const share = size > 0 ? Math.min(Math.max((t - this.start) / size, 0), 1) : 1;
      this.$el.setAttribute("aria-valuenow", Math.round(share * 1000));
      this.$refs.done.style.width = this.$refs.thumb.style.left = `${share * 100}%`;
    },
    at(e) {
      const box = this.$el.getBoundingClientRect();
      const share = Math.min(Math.max((e.clientX - box.left) / box.width, 0), 1);
      return this.start + share * (this.end - this.start);
    },
    down(e) {
      this.dragging = true;
      this.$el.setPointerCapture(e.pointerId);
      this.draw(this.at(e));
    },
    move(e) {
      if (this.dragging) this.draw(this.at(e));
    },
    up(e) {
      if (!this.dragging) return;
      this.dragging = false;
      this.draw(this.at(e));
      this.$emit("seek", this.at(e));
    },
  },
};
