"""What docs/performance/*.json says, as the tables and plots of docs/performance.md.

A measurement is `{"run": {…}, "report": {…}}`: how it came about, and what `wess bench` printed. No figure of a table comes
from anywhere else, and the shape of a table follows from the report's own names and units. Reads and writes text only."""

import hashlib
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
FOLDER = ROOT / "docs" / "performance"

BLOCK = re.compile(r"(<!-- (table|plot): ([\w-]+) -->\n)(.*?)(<!-- /\2 -->)", re.DOTALL)
# Scenarios once more beside others' responders: their goals are judged where nothing else runs.
REPEATED = ("peers", "peers-http")
# Figures that a reader knows by other words.
TITLES = {"calls_per_s": "calls/s", "cpu_us": "CPU µs", "us_per_call": "µs per call", "percent": "%"}
UNITS = {"us": "µs", "ms": "ms", "s": "s", "percent": "%"}


def measurements(folder=FOLDER):
    """Every measurement there is, by name."""
    return {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}


def keep(name, measurement, folder=FOLDER):
    """Writes one down."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(measurement, indent=1, ensure_ascii=False) + "\n")


def keep_plot(name, svg, source, folder=FOLDER):
    """Writes a picture down, with what it was drawn from. `name` is the measurement's, or that and a part: `calls.cpu`."""
    (folder / f"{name}.svg").write_text(f"{svg.rstrip()}\n<!-- of {digest(source)} -->\n")


def digest(source):
    """What a plot says that it was drawn from."""
    return hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()[:16]


def is_sample(value):
    """Whether it is what one responder did, rather than a case with several of them."""
    return isinstance(value, dict) and "calls_per_s" in value


def is_table(value):
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def flat(item, above=()):
    """Its figures by their path: `{"cpu_us": {"nats": 1}}` is `{("cpu_us", "nats"): 1}`. A sample adds nothing to the path."""
    figures = {}
    for key, value in item.items():
        path = above if is_sample(value) else (*above, key)
        figures |= flat(value, path) if isinstance(value, dict) else {path: value}
    return figures


def lines(case):
    """A case as lines: one for each responder that it compares, or itself. Of several the first is the measure, and fractions
    that the case has are of the next one, or of whom they name: `fresh_of_echo`. Others, which it lists, bring their own."""
    alone = {key: value for key, value in case.items() if not is_sample(value) and not isinstance(value, list)}
    samples = {key: value for key, value in case.items() if is_sample(value)}
    others = [other for value in case.values() if is_table(value) for other in value]
    if len(samples) + len(others) < 2:
        return [flat({**alone, **samples})]
    compared = {key: value for key, value in alone.items() if isinstance(value, float)}
    alone = without(alone, *compared)
    found = {who: flat({**alone, "who": who, **sample}) for who, sample in samples.items()}
    for key, value in compared.items():
        who, _, of = key.rpartition("_of_")
        line, name = (found[who], f"of_{of}") if who in found else (list(found.values())[:2][-1], key)
        line[(name,)] = value
    return [*found.values(), *(flat({**alone, "who": other["name"], **without(other, "name")}) for other in others)]


def without(item, *keys):
    return {key: value for key, value in item.items() if key not in keys}


def words(path):
    """A figure's name for people: `("cpu_us", "nats")` is `CPU µs: nats`, and what is called as it is above is that."""
    return ": ".join(dict.fromkeys(word(key) for key in path))


def word(key):
    if key in TITLES:
        return TITLES[key]
    name, _, unit = key.rpartition("_")
    if key.endswith("_per_s"):
        return key.removesuffix("_per_s").replace("_", " ") + "/s"
    return f"{name.replace('_', ' ')} {UNITS[unit]}" if name and unit in UNITS else key.removesuffix("_bytes").replace("_", " ")


def number(path, value):
    """A figure as its unit asks for; nothing where there is none."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value.replace("|", "\\|")
    if isinstance(value, list):
        return ", ".join(number(path, one) for one in value)
    if path[-1].endswith("_bytes"):
        return size(value)
    if isinstance(value, int):
        return str(value)
    if path[-1].endswith("_per_s") or (path[-1].endswith("_us") and value >= 100):
        return f"{value:.0f}"
    if any(key.endswith(("_us", "_percent")) for key in path) or path[-1] == "percent":
        return f"{value:.1f}"
    if abs(value) >= 100 or (value.is_integer() and not is_ratio(path)):
        return f"{value:.0f}"
    return f"{value:.2f}" if abs(value) >= 0.01 or value == 0 else f"{value:.1g}"


def is_ratio(path):
    return path[-1] == "ratio" or path[-1].endswith("_ratio") or path[0].startswith("of_")


def size(count):
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            break
        count, unit = count / 1024, {"B": "KiB", "KiB": "MiB", "MiB": "GiB"}[unit]
    return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"


def markdown(titles, rows):
    """A table whose columns line up in the source too."""
    widths = [max(len(row[at]) for row in [titles, *rows]) for at in range(len(titles))]
    line = lambda cells: "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths)) + " |"
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(titles), rule, *map(line, rows)]) + "\n"


def table(found):
    """Lines as one table: a column for each figure that any of them has, in the order of first sight, ratios of rates beside those."""
    paths = list(dict.fromkeys(path for line in found for path, value in line.items() if value is not None))
    ratios = [path for path in paths if is_ratio(path)]
    if ("calls_per_s",) in paths:
        ratios = [path for path in ratios if not path[-1].endswith("_ratio")]
        paths = [path for path in paths if path not in ratios]
        paths[(at := paths.index(("calls_per_s",)) + 1):at] = ratios
    return markdown([words(path) for path in paths], [[number(path, line.get(path)) for path in paths] for line in found])


def tables_of(report):
    """The lines of each table: those of each list in a report, and those of the responders that stand in it by themselves."""
    found = [[line for case in value for line in lines(case)] for key, value in report.items() if key != "goals" and is_table(value)]
    alone = [flat({"who": who, **sample}) for who, sample in report.items() if is_sample(sample)]
    return [*found, alone] if alone else found


def tables(report):
    """Everything in a report but its goals, as tables; the last is of what stands alone."""
    told = {key: value for key, value in report.items() if key not in ("goals", "cores") and not is_sample(value) and not isinstance(value, list)}
    facts = [[words(path), number(path, value)] for path, value in flat(told).items() if value is not None]
    found = [table(lines) for lines in tables_of(report)]
    return "\n".join([*found, markdown(["measured", ""], facts)] if facts else found)


def all_goals(found):
    """What is wanted, over all measurements: scenario and goal."""
    return [(name, goal) for name, one in found.items() if name not in REPEATED for goal in one["report"].get("goals", [])]


def is_reached(goal):
    return goal["measured"] >= goal["goal"] if goal["at_least"] else goal["measured"] <= goal["goal"]


def goals(found):
    """The same as a table."""
    rows = [[name, goal["what"], wanted(goal), figure(goal["measured"]), "yes" if is_reached(goal) else "NO"] for name, goal in all_goals(found)]
    return markdown(["scenario", "what", "goal", "measured", "reached"], rows)


def wanted(goal):
    return f"{'≥' if goal['at_least'] else '≤'} {figure(goal['goal'])}"


def figure(value):
    """A goal's figure: as many digits as it takes to tell it from its goal."""
    return str(value) if isinstance(value, int) else f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def runs(found):
    """When, of what and how each was measured, and below it on what, once for each machine that there was."""
    rows = [[name, run["date"], run["commit"], f"`{run['command']}`"] for name, run in ((name, one["run"]) for name, one in found.items())]
    machines = dict.fromkeys(tuple(one["run"]["machine"].items()) for one in found.values())
    facts = [markdown(["machine", ""], [[words((key,)), number((key,), value)] for key, value in machine]) for machine in machines]
    return "\n".join([markdown(["scenario", "date", "commit", "command"], rows), *facts])


# Made of all measurements, not of one.
OVERVIEWS = {"goals": goals, "runs": runs}


def plots(name, folder=FOLDER):
    """The pictures there are of a measurement."""
    files = sorted(file.name for file in folder.glob("*.svg") if re.fullmatch(rf"{re.escape(name)}(\.[\w-]+)?\.svg", file.name))
    return "".join(f"![{file.removesuffix('.svg').replace('.', ': ').replace('-', ' ')}]({folder.name}/{file})\n" for file in files)


def render(page, found, folder=FOLDER):
    """The page with every block rewritten whose measurement is there; one that was not measured stays as it is."""

    def block(match):
        start, kind, name, kept, end = match.groups()
        if not found or name not in (*found, *OVERVIEWS):
            return match[0]
        if kind == "plot":
            return f"{start}{plots(name, folder)}{end}"
        return f"{start}{OVERVIEWS[name](found) if name in OVERVIEWS else tables(found[name]['report'])}{end}"

    return BLOCK.sub(block, page)


def write():
    """Brings the page in step."""
    page = PAGE.read_text()
    rendered = render(page, measurements())
    if rendered != page:
        PAGE.write_text(rendered)


def faults(page, found, folder=FOLDER):
    """Where the page and the plots are not what the measurements say."""
    rendered = render(page, found, folder)
    for before, after in zip(BLOCK.finditer(page), BLOCK.finditer(rendered)):
        if before[0] != after[0]:
            yield f"the {before[2]} of {before[3]} is not what its measurement says"
    shown = {match[3] for match in BLOCK.finditer(page) if match[2] == "table"}
    for name in found.keys() - shown:
        yield f"{name}.json has no table"
    for file in sorted(folder.glob("*.svg")):
        name = file.name.split(".")[0]
        source = all_goals(found) if name == "goals" else found.get(name)
        if f"<!-- of {digest(source)} -->" not in file.read_text():
            yield f"{file.name} was drawn from other figures"
