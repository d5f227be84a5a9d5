"""What a board consists of in Grafana's JSON: variables, queries, panels, links.

The idea is that a board's file says only what differs from panel to panel: what is asked, in which unit, where it is drawn.
"""

PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
HOST = 'job=~"$job", instance=~"$instance"'

# The levels at which the alerts fire too.
WARNING, CRITICAL = 0.8, 0.95
LEVELS = [("green", None), ("yellow", WARNING), ("red", CRITICAL)]
BAD_FROM_ONE = [("green", None), ("red", 1)]
PLAIN = [("text", None)]

# Rows of a table: more than a person reads, and little enough to draw at once.
ROWS_MAX = 50


def series(metric, *matchers):
    """A selector: every query asks only for the hosts that are selected."""
    return "%s{%s}" % (metric, ", ".join([HOST, *matchers]))


def target(expr, legend):
    return {"datasource": PROMETHEUS, "editorMode": "code", "expr": expr, "legendFormat": legend}


def steps(levels):
    return {"mode": "absolute", "steps": [{"color": color, "value": value} for color, value in levels]}


def variable(name, query, label=None, metric_label=None, **fields):
    """A variable with the values that a label has; all of them at first."""
    query = "label_values(%s, %s)" % (query, metric_label or name)
    return {
        "name": name,
        "label": label or name.capitalize(),
        "type": "query",
        "datasource": PROMETHEUS,
        "definition": query,
        "query": {"qryType": 1, "query": query, "refId": name},
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "options": [],
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "refresh": 2,  # on a change of the time range
        "sort": 3,  # as numbers
        "regex": "",
        "hide": 0,
        "skipUrlSync": False,
        **fields,
    }


def choice(name, label, options, chosen, description):
    """A variable with given values; options are pairs of what is read and what is put in."""
    options = [{"text": text, "value": value, "selected": value == chosen} for text, value in options]
    return {
        "name": name,
        "label": label,
        "description": description,
        "type": "custom",
        "query": ", ".join("%s : %s" % (option["text"], option["value"]) for option in options),
        "current": next(option for option in options if option["selected"]),
        "options": options,
        "multi": False,
        "includeAll": False,
        "hide": 0,
        "skipUrlSync": False,
    }


DATASOURCE = {
    "name": "datasource",
    "label": "Data source",
    "type": "datasource",
    "query": "prometheus",
    "current": {},
    "options": [],
    "multi": False,
    "includeAll": False,
    "refresh": 1,
    "regex": "",
    "hide": 0,
    "skipUrlSync": False,
}
JOB = variable("job", "ttmem_build_info", sort=5)
INSTANCE = variable("instance", 'ttmem_build_info{job=~"$job"}', sort=5)
DEVICE = variable("device", series("ttmem_device_memory_usage_bytes"))
PROCESS = variable("process", series("ttmem_process_info"), sort=5)


def panel(
    kind, width, title, description, targets, unit, *, levels=PLAIN, defaults=None, overrides=(), options=None, **fields
):
    for number, one in enumerate(targets):
        one["refId"] = chr(ord("A") + number)
    return {
        "type": kind,
        "width": width,
        "title": title,
        "description": description,
        "datasource": PROMETHEUS,
        "targets": targets,
        "fieldConfig": {
            "defaults": {
                "unit": unit,
                "thresholds": steps(levels),
                "color": {"mode": "thresholds"},
                **(defaults or {}),
            },
            "overrides": list(overrides),
        },
        "options": options or {},
        **fields,
    }


def instant(expr, legend):
    return {**target(expr, legend), "instant": True, "range": False}


def stat(width, title, description, expr, unit, *, legend="", levels=PLAIN, background=False, text="auto", **defaults):
    """One number, of now or over the whole time range."""
    return panel(
        "stat",
        width,
        title,
        description,
        [instant(expr, legend or title)],
        unit,
        levels=levels,
        defaults=defaults,
        options={
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "background" if background else "value",
            "graphMode": "none",
            "justifyMode": "center",
            "orientation": "auto",
            "textMode": text,
            "wideLayout": False,
        },
    )


def gauge(width, title, description, expr):
    """A share of something limited."""
    defaults = {"min": 0, "max": 1, "decimals": 1}
    return panel(
        "gauge",
        width,
        title,
        description,
        [instant(expr, title)],
        "percentunit",
        levels=LEVELS,
        defaults=defaults,
        options={
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "orientation": "auto",
            "showThresholdLabels": False,
            "showThresholdMarkers": True,
            "sizing": "auto",
        },
    )


def graph(
    width,
    title,
    description,
    targets,
    unit,
    *,
    stacked=False,
    filled=False,
    limits=False,
    bars=False,
    signed=False,
    logarithm=None,
    soft_max=None,
    legend="list",
    overrides=(),
    **defaults
):
    """Courses over time."""
    custom = {
        "drawStyle": "bars" if bars else "line",
        "lineInterpolation": "linear",
        "lineWidth": 1 if stacked else 2,
        "fillOpacity": 70 if bars else 35 if stacked else 12 if filled else 0,
        "gradientMode": "none",
        "showPoints": "never",
        "spanNulls": False,
        **({} if signed or logarithm else {"axisSoftMin": 0}),
        **({"scaleDistribution": {"type": "log", "log": logarithm}} if logarithm else {}),
        **({"axisSoftMax": soft_max} if soft_max else {}),
        "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
        "thresholdsStyle": {"mode": "dashed" if limits else "off"},
    }
    return panel(
        "timeseries",
        width,
        title,
        description,
        [target(expr, name) for expr, name in targets],
        unit,
        levels=LEVELS if limits else PLAIN,
        defaults={"color": {"mode": "palette-classic"}, "custom": custom, **defaults},
        overrides=overrides,
        options={
            "legend": {
                "displayMode": legend,
                "placement": "right" if legend == "table" else "bottom",
                "showLegend": True,
                "calcs": ["lastNotNull"] if legend == "table" else [],
                **({"sortBy": "Last *", "sortDesc": True} if legend == "table" else {}),
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    )


def named(name, **properties):
    """What is different for one series or one column."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [
            {"id": identifier.replace("__", "."), "value": value} for identifier, value in properties.items()
        ],
    }


class Column:
    """A column of a table: a label's values, or those of a query."""

    def __init__(
        self, title, field=None, expr=None, unit=None, width=None, link=None, levels=None, bar=False, **properties
    ):
        self.title, self.field, self.expr = title, field, expr
        self.properties = dict(displayName=title, **properties)
        if unit:
            self.properties["unit"] = unit
        if width:
            self.properties["custom__width"] = width
        if levels:
            self.properties.update(thresholds=steps(levels), color={"mode": "thresholds"})
            self.properties["custom__cellOptions"] = {"type": "color-text"}
        if field:
            self.properties["custom__filterable"] = True
        if bar:
            self.properties.update(min=0, max=1, decimals=properties.get("decimals", 1))
            self.properties["custom__cellOptions"] = {"type": "gauge", "mode": "basic", "valueDisplayMode": "color"}
        if link:
            self.properties["links"] = [link]


def table(width, title, description, columns, *, sort, descending=True, none="-"):
    """One row for each set of labels; the columns' queries have to agree on the labels. sort is a column's title."""
    asked = [column for column in columns if column.expr]
    for number, column in enumerate(asked):
        column.field = "Value #%s" % chr(ord("A") + number) if len(asked) > 1 else "Value"
    labels = " ".join("{{%s}}" % column.field for column in columns if not column.expr)
    ranked = next(column.field for column in columns if column.title == sort)
    return panel(
        "table",
        width,
        title,
        description,
        [{**instant(column.expr, labels), "format": "table"} for column in asked],
        "none",
        defaults={"custom": {"align": "auto", "filterable": False, "minWidth": 60}, "noValue": none},
        overrides=[named(column.field, **column.properties) for column in columns],
        options={"cellHeight": "sm", "showHeader": True, "footer": {"show": False}},
        transformations=[
            {"id": "merge", "options": {}},
            {"id": "sortBy", "options": {"fields": {}, "sort": [{"field": ranked, "desc": descending}]}},
            {"id": "limit", "options": {"limitField": ROWS_MAX}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": {"Time": True},
                    "indexByName": {column.field: number for number, column in enumerate(columns)},
                    "renameByName": {},
                },
            },
        ],
    )


def row(title):
    return {"type": "row", "width": 24, "title": title, "collapsed": False, "panels": []}


# ttmem's alerts for the selected hosts: those that fire, and for each, firing or not yet, the time since when its condition holds.
OURS = '%s, alertname=~"Ttmem.+"' % HOST
ALERTS = 'ALERTS{%s, alertstate="firing"}' % OURS
ALERTS_SINCE = "ALERTS_FOR_STATE{%s}" % OURS


def annotations():
    return {
        "list": [
            {
                "name": "Alerts",
                "datasource": PROMETHEUS,
                "enable": True,
                "hide": False,
                "iconColor": "red",
                "expr": ALERTS,
                "step": "30s",
                "titleFormat": "{{alertname}}",
                "textFormat": "{{instance}} device {{device}} {{memory_type}} {{process}}",
                "tagKeys": "severity",
            },
            {
                "name": "Daemon starts",
                "datasource": PROMETHEUS,
                "enable": False,
                "hide": False,
                "iconColor": "blue",
                "expr": "%s * 1000" % series("process_start_time_seconds"),
                "useValueForTime": "on",
                "titleFormat": "ttmem started",
                "textFormat": "{{instance}}",
                "tagKeys": "",
            },
        ]
    }


def link(uid, title, **variables):
    """A link from a cell to a board, where a variable gets the value of one of the row's fields."""
    parts = ["${datasource:queryparam}", "${job:queryparam}"]
    parts += ["var-%s=${__data.fields.%s}" % (name, field) for name, field in variables.items()]
    return {"title": title, "url": "/d/%s?%s&${__url_time_range}" % (uid, "&".join(parts)), "targetBlank": False}


def placed(lines):
    """Gives every panel its id and its place. A line is a title, or a height and the panels that stand side by side."""
    panels, top = [], 0
    for line in lines:
        if isinstance(line, str):
            height, side_by_side = 1, [row(line)]
        else:
            height, *side_by_side = line
        assert sum(one["width"] for one in side_by_side) == 24, line
        left = 0
        for one in side_by_side:
            width = one.pop("width")
            panels.append({"id": len(panels) + 1, "gridPos": {"h": height, "w": width, "x": left, "y": top}, **one})
            left += width
        top += height
    return panels


def board(uid, title, description, variables, lines):
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["ttmem", "tenstorrent"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,  # one crosshair over all panels
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "annotations": annotations(),
        "links": [],
        "templating": {"list": [DATASOURCE, JOB, INSTANCE, *variables]},
        "panels": placed(lines),
    }


def connect(boards):
    """Links from every board to all others, which take variables and time along."""
    for board in boards:
        board["links"] = [
            {
                "type": "link",
                "title": other["title"].partition(" / ")[2],
                "url": "/d/%s" % other["uid"],
                "tooltip": other["description"],
                "icon": "dashboard",
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "asDropdown": False,
                "tags": [],
            }
            for other in boards
            if other is not board
        ]
