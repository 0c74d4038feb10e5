"""What the page says, in English and Chinese: texts, names of KPIs and states, quantities, times.

Every text on the screen goes through ``say`` (or ``kpi``, ``state``, ``quantity``): a table has
both languages in one entry, so none can be missing in one of them. Names of assets, orders and
products are the plant's own and stay as they are; so do identifiers that people type (``oee``).
"""

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo

from beilun import console
from beilun.serving.page.kpi_words import KPIS, SUMMARIES_ZH
from beilun.serving.page.view_words import VIEW_WORDS
from config.units import NS_PER_S
from edge import kpis

LANGUAGES: Mapping[str, str] = {"en": "English", "zh": "中文"}
"""Code to what speakers call it; the first is the default."""

_SHELL: dict[str, tuple[str, str]] = {
    # views
    "view.overview": ("Overview", "总览"),
    "view.compare": ("Compare", "对比"),
    # header
    "title": ("{site} · Beilun", "{site} · 北仑"),
    "clock.local": ("Local, {zone}", "当地 {zone}"),
    "clock.utc": ("UTC", "世界时 UTC"),
    "mode.live": ("Live", "实时"),
    "mode.replay": ("Replay", "回放"),
    "mode.paused": ("Paused", "已暂停"),
    "mode.end": ("End", "末尾"),
    "mode.quiet": ("No news for {age}", "{age}无新数据"),
    "theme": ("Light or dark", "浅色或深色"),
    "language": ("中文", "English"),
    "language.tip": ("Switch to Chinese", "切换为英文"),
    "help": ("Keys", "快捷键"),
    "menu": ("Views", "视图"),
    "window": ("Window", "统计窗口"),
    "role.operator": ("Operator", "操作员"),
    "role.viewer": ("Viewer", "访客"),
    "role.customer": ("Customer", "客户"),
    "alarms.standing": ("{n} alarms stand", "当前报警 {n} 条"),
    "sign_out": ("Sign out", "退出登录"),
    # recordings
    "runs": ("Recordings", "运行记录"),
    "runs.compare": ("Compare", "对比"),
    "runs.here": ("shown", "当前"),
    "runs.other": ("compared", "对照"),
    "runs.none": ("There is no other recording here.", "此处没有其他运行记录。"),
    "runs.newer": ("A newer run has begun: {name}", "新的运行已开始：{name}"),
    "runs.newer_open": ("Open it (N)", "打开（N）"),
    "seed": ("seed {seed}", "种子 {seed}"),
    # replay bar
    "bar.play": ("Play", "播放"),
    "bar.pause": ("Pause", "暂停"),
    "bar.back": ("One minute back", "后退一分钟"),
    "bar.on": ("One minute on", "前进一分钟"),
    "bar.follow": ("Go live", "转到实时"),
    "bar.end": ("To the end", "转到末尾"),
    "bar.speed": ("Speed", "速度"),
    "bar.place": ("Moment shown", "所示时刻"),
    # help
    "key.space": ("play or pause", "播放或暂停"),
    "key.arrows": (
        "a minute back or on; with Shift an hour",
        "后退或前进一分钟；按住 Shift 为一小时",
    ),
    "key.plus": ("faster, slower", "加速、减速"),
    "key.home": ("to the start, to the end", "到开头、到末尾"),
    "key.g": ("follow the newest data", "跟随最新数据"),
    "key.w": ("next window", "下一个统计窗口"),
    "key.t": ("light or dark", "浅色或深色"),
    "key.l": ("English or Chinese", "英文或中文"),
    "key.digits": ("open a view", "打开视图"),
    "key.o": ("list of recordings", "运行记录列表"),
    "key.n": ("open a newer run, where one has begun", "新的运行开始后打开它"),
    "key.help": ("this list", "显示本列表"),
    "close": ("Close", "关闭"),
    # tiles
    "tile.line_speed": ("Line speed", "线速度"),
    "tile.wip_turnover_days": ("WIP turnover", "在制品周转"),
    "tile.oee": ("OEE", "设备综合效率 OEE"),
    "tile.value_per_head": ("Output per head", "人均产值"),
    "tile.within_10ms": ("Within 10 ms", "10 毫秒内送达"),
    "tile.none": ("no data", "无数据"),
    "tile.age": ("{age} old", "{age}前"),
    "tile.stale": ("stale for {age}", "已过时 {age}"),
    "tile.target": ("target {band}", "目标 {band}"),
    "tile.target_each": ("target {band}, each", "目标 {band}（每台）"),
    "tile.over": ("{target}; {window}: {value}", "{target}；{window}：{value}"),
    "tile.per": ("per {window}", "每 {window}"),
    "band.at_least": ("≥ {low}", "≥ {low}"),
    "band.at_most": ("≤ {high}", "≤ {high}"),
    "band.between": ("{low}–{high}", "{low}–{high}"),
    # map
    "map": ("Plant map", "车间地图"),
    "map.grid": ("Assets by area", "各区域设备"),
    "map.vehicle": (
        "{name}: battery {battery}, {load}, {doing}",
        "{name}：电量 {battery}，{load}，{doing}",
    ),
    "map.loaded": ("loaded", "载货"),
    "map.empty": ("empty", "空载"),
    "map.driving": ("driving", "行驶中"),
    "map.standing": ("standing", "停止"),
    "map.waiting": ("waits for others", "等待让行"),
    "map.charging": ("charging", "充电中"),
    "map.link": ("{share} ≤ 10 ms", "{share} ≤ 10 毫秒"),
    "map.cell": ("radio cell {name}", "小区 {name}"),
    "map.no_link": ("no messages", "无消息"),
    "map.no_data": ("No data yet", "暂无数据"),
    "state.none": ("No state", "无状态"),
    # compare
    "compare.here": ("This recording", "本记录"),
    "compare.other": ("Other recording", "对照记录"),
    "compare.offset": ("{age} after each start", "各自开始后 {age}"),
    "compare.difference": ("Difference", "差异"),
    "compare.better": ("better", "更好"),
    "compare.worse": ("worse", "更差"),
    "compare.same": ("same", "相同"),
    "compare.points": ("{n} points", "{n} 个百分点"),
    "compare.kpi": ("KPI", "指标"),
    "compare.asset": ("Asset", "设备"),
    "compare.none": (
        "Nothing to compare with: open a second recording with --compare.",
        "没有可对比的记录：请用 --compare 打开第二个记录。",
    ),
    "compare.over": (
        "The other recording ended {age} before this moment.",
        "对照记录在此时刻前 {age} 已结束。",
    ),
    "compare.filter": ("Filter KPI or asset", "筛选指标或设备"),
    "compare.worst": ("Largest differences first, worse before better", "按差异排序，变差者在前"),
    "compare.more": ("{n} more; filter to see them", "另有 {n} 项，可用筛选查看"),
    "compare.empty": (
        "No KPI of both recordings has a value here.",
        "此刻两个记录没有共有的指标值。",
    ),
    # what goes wrong
    "trouble": ("Not up to date: {why}", "数据未更新：{why}"),
    "gone": ("There is no such view.", "没有这个视图。"),
    "lost.title": ("Connection lost.", "连接已断开。"),
    "lost.text": ("Trying to reconnect …", "正在重新连接……"),
    # ages
    "age.s": ("{n} s", "{n} 秒"),
    "age.m": ("{n} min", "{n} 分钟"),
    "age.h": ("{n} h {m} min", "{n} 小时 {m} 分"),
    "age.d": ("{n} d {m} h", "{n} 天 {m} 小时"),
}

WORDS: Mapping[str, tuple[str, str]] = {**_SHELL, **VIEW_WORDS}
"""Every text, by key: in English, in Chinese."""

_STATES: Mapping[str, tuple[str, str, str]] = {
    # PackML state: letter, English, Chinese
    "EXECUTE": ("E", "Execute", "执行"),
    "STARTING": ("S", "Starting", "启动中"),
    "RESETTING": ("R", "Resetting", "复位中"),
    "COMPLETING": ("C", "Completing", "完成中"),
    "COMPLETE": ("C", "Complete", "完成"),
    "IDLE": ("I", "Idle", "空闲"),
    "SUSPENDED": ("U", "Suspended", "挂起"),
    "SUSPENDING": ("U", "Suspending", "挂起中"),
    "UNSUSPENDING": ("U", "Unsuspending", "解除挂起"),
    "HELD": ("H", "Held", "保持"),
    "HOLDING": ("H", "Holding", "保持中"),
    "UNHOLDING": ("H", "Unholding", "解除保持"),
    "ABORTED": ("A", "Aborted", "中止"),
    "ABORTING": ("A", "Aborting", "中止中"),
    "CLEARING": ("A", "Clearing", "清除中"),
    "STOPPED": ("X", "Stopped", "停止"),
    "STOPPING": ("X", "Stopping", "停止中"),
}

_UNITS: Mapping[str, tuple[str, str]] = {
    # UCUM: English, Chinese; others are shown as they are
    "1": ("", ""),
    "m/s": ("m/s", "米/秒"),
    "m": ("m", "米"),
    "s": ("s", "秒"),
    "ms": ("ms", "毫秒"),
    "h": ("h", "小时"),
    "d": ("days", "天"),
    "kg/h": ("kg/h", "千克/小时"),
    "kg/m": ("kg/m", "千克/米"),
    "kW.h/m": ("kWh/m", "千瓦时/米"),
    "kW.h/{piece}": ("kWh/piece", "千瓦时/件"),
    "kg/{piece}": ("kg/piece", "千克/件"),
    "{piece}": ("pieces", "件"),
    "{piece}/h": ("pieces/h", "件/小时"),
    "{piece}/{person}/h": ("pieces/person/h", "件/人/小时"),
    "{CNY}/{person}/a": ("CNY/person/year", "元/人/年"),
    "{turn}/a": ("turns/year", "次/年"),
    "{event}": ("events", "次"),
    "{message}": ("messages", "条"),
    "{sample}": ("samples", "个样本"),
    "{fault}/km": ("faults/km", "个缺陷/千米"),
    "{cycle}": ("cycles", "个循环"),
    "{run}": ("runs", "段"),
    "A": ("A", "安"),
    "ns": ("ns", "纳秒"),
    "mm": ("mm", "毫米"),
    "km": ("km", "千米"),
    "kg": ("kg", "千克"),
    "degC": ("°C", "摄氏度"),
    "Cel": ("°C", "摄氏度"),
    "kN": ("kN", "千牛"),
    "N": ("N", "牛"),
    "bar": ("bar", "巴"),
    "mbar": ("mbar", "毫巴"),
    "MPa": ("MPa", "兆帕"),
    "kPa": ("kPa", "千帕"),
    "V": ("V", "伏"),
    "W": ("W", "瓦"),
    "kW": ("kW", "千瓦"),
    "kWh": ("kWh", "千瓦时"),
    "kW.h": ("kWh", "千瓦时"),
    "kg/kWh": ("kg/kWh", "千克/千瓦时"),
    "rad": ("rad", "弧度"),
    "rad/s": ("rad/s", "弧度/秒"),
    "m/s2": ("m/s²", "米/秒²"),
    "1/min": ("/min", "次/分"),
    "Hz": ("Hz", "赫兹"),
    "%": ("%", "%"),
    "CNY": ("CNY", "元"),
}


def _pick(pair: tuple[str, str], language: str) -> str:
    return pair[1] if language == "zh" else pair[0]


def say(key: str, language: str, **values: object) -> str:
    """The text of a key; a ``KeyError`` is a bug of the caller.

    >>> say("tile.age", "zh", age="3 秒")
    '3 秒前'
    """
    text = _pick(WORDS[key], language)
    return text.format(**values) if values else text


def kpi(name: str, language: str) -> str:
    """What people call a KPI; one that is not shipped goes by its name.

    >>> kpi("oee", "en"), kpi("my_kpi", "zh")
    ('OEE', 'my_kpi')
    """
    return _pick(KPIS[name], language) if name in KPIS else name


def state(name: str, language: str) -> str:
    """What people call a PackML state, by its name; empty: no state is known."""
    if name not in _STATES:
        return name.capitalize() if name else say("state.none", language)
    return _pick(_STATES[name][1:], language)


def letter(name: str) -> str:
    """The letter of a PackML state, so that colour is never its only sign."""
    return _STATES[name][0] if name in _STATES else "–"


def unit(ucum: str, language: str) -> str:
    """A unit for people.

    >>> unit("kW.h/{piece}", "en")
    'kWh/piece'
    """
    return _pick(_UNITS[ucum], language) if ucum in _UNITS else ucum


def is_share(name: str, ucum: str) -> bool:
    """Whether a KPI, or with no name any quantity, is shown in percent. A pure number of a KPI that
    is not shipped is taken for a share, as most are.

    >>> is_share("oee", "1"), is_share("diameter_cpk", "1"), is_share("line_speed", "m/s")
    (True, False, False)
    """
    known = kpis.load().get(name)
    return ucum == "1" if known is None else known.is_share


def quantity(
    value: float | None, ucum: str, language: str, *, kpi: str = "", short: bool = False
) -> tuple[str, str]:
    """Number and unit for people, to three significant digits; shares in percent. Of a ``kpi`` it
    is known whether it is one. ``short``: large numbers in thousands or millions (Chinese: in 万 or
    亿), for where they must be large to read.

    >>> quantity(0.7135, "1", "en"), quantity(514_233.0, "{CNY}/{person}/a", "en")
    (('71.3', '%'), ('514,000', 'CNY/person/year'))
    >>> quantity(514_233.0, "d", "en", short=True), quantity(514_233.0, "d", "zh", short=True)
    (('514k', 'days'), ('51.4万', '天'))
    >>> quantity(0.99984, "1", "en"), quantity(None, "m/s", "zh")
    (('99.98', '%'), ('–', '米/秒'))
    >>> quantity(1.333, "1", "en", kpi="diameter_cpk")
    ('1.33', '')
    """
    if is_share(kpi, ucum):
        return console.number(None if value is None else value * 100), "%"
    if value is None or abs(value) < 10_000:
        return console.number(value), unit(ucum, language)
    if not short:
        return f"{float(f'{value:.3g}'):,.0f}", unit(ucum, language)
    sizes = ((1e8, "亿"), (1e4, "万")) if language == "zh" else ((1e9, "G"), (1e6, "M"), (1e3, "k"))
    size, sign = next((size, sign) for size, sign in sizes if abs(value) >= size)
    return console.number(value / size) + sign, unit(ucum, language)


def text_of(value: float | None, ucum: str, language: str, *, kpi: str = "") -> str:
    """The same in one piece, like ``71.3 %``; a dash where there is no value.

    >>> text_of(0.7135, "1", "en"), text_of(21.0, "degC", "en"), text_of(None, "1", "en")
    ('71.3 %', '21.0 °C', '–')
    """
    if value is None:
        return console.NO_DATA
    return " ".join(part for part in quantity(value, ucum, language, kpi=kpi) if part)


def summary(name: str, language: str) -> str:
    """What a KPI is, in a sentence or two; of one that is not shipped in the words of its maker,
    and of one that nobody knows here its name."""
    known = kpis.load().get(name)
    if known is None:
        return name
    return SUMMARIES_ZH.get(name, known.summary) if language == "zh" else known.summary


def fault(kind: str, language: str) -> str:
    """What people call a kind of fault of a scenario.

    >>> fault("clock_step", "en"), fault("clock_step", "zh")
    ('clock step', '时钟跳变')
    """
    return _coded(f"fault.{kind}", kind, language)


def cause(code: str, language: str) -> str:
    """Why a message was lost, refused, or of no use, by its code in the ledger.

    >>> cause("too_large", "zh"), cause("of_another_version", "zh")
    ('报文过大', 'of another version')
    """
    return _coded(f"cause.{code}", code, language)


def _coded(key: str, code: str, language: str) -> str:
    return say(key, language) if key in WORDS else code.replace("_", " ")


def age(ns: int, language: str) -> str:
    """How long, in two parts at most.

    >>> age(95 * NS_PER_S, "en"), age(7_500 * NS_PER_S, "en")
    ('1 min', '2 h 5 min')
    """
    whole_s = max(ns, 0) // NS_PER_S
    if whole_s < 60:
        return say("age.s", language, n=whole_s)
    minutes = whole_s // 60
    if minutes < 60:
        return say("age.m", language, n=minutes)
    hours = minutes // 60
    if hours < 48:
        return say("age.h", language, n=hours, m=minutes % 60)
    return say("age.d", language, n=hours // 24, m=hours % 24)


def clock(t_ns: int, zone: tzinfo) -> tuple[str, str]:
    """Date and time of day in a zone, to the second (rounded down)."""
    at = datetime.fromtimestamp(t_ns // NS_PER_S, zone)
    return at.strftime("%Y-%m-%d"), at.strftime("%H:%M:%S")


def zone_name(zone: tzinfo, t_ns: int) -> str:
    """A zone as people know it, with how far it is from UTC: ``Asia/Shanghai, UTC+08:00``."""
    at = datetime.fromtimestamp(t_ns // NS_PER_S, zone)
    offset = at.strftime("%z")
    name = str(getattr(zone, "key", "")) or at.tzname() or ""
    far = f"UTC{offset[:3]}:{offset[3:5]}"
    return far if zone is UTC or name in ("", "UTC") or name.startswith("UTC") else f"{name}, {far}"
