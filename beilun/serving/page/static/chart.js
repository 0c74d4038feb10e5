// A chart by ECharts, like NiceGUI's own, but for a view that is closed before it was drawn: that one
// leaves nothing behind, and no error.
import { echarts } from "nicegui-echart";
import { convertDynamicProperties } from "../../static/utils/dynamic_properties.js";

export default {
  template: "<div></div>",
  props: { options: Object, renderer: String },
  mounted() {
    this.waiting = requestAnimationFrame(() => {
      this.chart = echarts.init(this.$el, null, { renderer: this.renderer });
      this.observer = new ResizeObserver(() => this.chart.resize());
      this.observer.observe(this.$el);
      this.update_chart();
    });
  },
  beforeUnmount() {
    cancelAnimationFrame(this.waiting);
    this.observer?.disconnect();
    this.chart?.dispose();
  },
  methods: {
    update_chart() {
      if (!this.chart) return; // it will be drawn with what it has then
      convertDynamicProperties(this.options, true);
      const before = this.chart.getOption()?.series?.length;
      this.chart.setOption(this.options, { notMerge: before !== this.options.series?.length });
    },
  },
};
