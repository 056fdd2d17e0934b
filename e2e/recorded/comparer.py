"""Says how recordings of a hub differ from what real Kratix did.

usage: comparer.py RECORDED RECORDINGS RULES.yaml [--soft]

RECORDINGS holds one file for each scenario that was played. What the recording's own rules let pass is not
looked at; of what remains, each difference needs one of our rules. Where all scenarios are here, a rule that
is not needed is told, too. What the recording's rules call soft is counted and never fails; --soft prints it.

RULES.yaml is a list; each entry has its reason (`why`), and either
  lines:    patterns of the differences as they are printed here; `in` narrows them to scenarios, and
            `sometimes` says that timing decides whether they are seen;
  columns:  names of printed columns that only the hub has, in `tables` (a pattern): they are taken away before
            rows are compared;
  without:  patterns of text that only the hub has; it is taken out of files before they are compared.
Exit status 1 if something is not accounted for.
"""

import json
import os
import re
import sys

import yaml

soft = "--soft" in sys.argv
recorded, recordings, ours = (os.path.abspath(path) for path in sys.argv[1:4])
sys.path.insert(0, recorded)

import compare  # noqa: E402 - found only now


# Most differences that are printed of a scenario: one cause often makes many.
LINES_MAX = 40


class Rule:
    """A kind of difference that is meant."""

    def __init__(self, entry):
        self.why = entry["why"]
        self.scenarios = re.compile(entry.get("in", ""))
        self.lines = [re.compile(line) for line in entry.get("lines", [])]
        self.columns = set(entry.get("columns", []))
        self.tables = re.compile(entry.get("tables", ""))
        self.without = [re.compile(text) for text in entry.get("without", [])]
        # Shown only when the machine is slow or fast enough.
        self.sometimes = entry.get("sometimes", False)
        self.used = [0] * len(self.lines)

    def lets_pass(self, scenario, line):
        if not self.scenarios.search(scenario):
            return False
        for i, pattern in enumerate(self.lines):
            if pattern.search(line):
                self.used[i] += 1
                return True
        return False

    def narrow(self, recording):
        """Takes our columns out of tables, and our text out of files."""
        for pattern in self.without:
            recording["snapshots"] = without(pattern, recording["snapshots"])
        for snapshot in recording["snapshots"].values():
            for name, table in snapshot["tables"].items():
                if self.columns and self.tables.search(name):
                    kept = [i for i, column in enumerate(table["columns"]) if column not in self.columns]
                    table["columns"] = [table["columns"][i] for i in kept]
                    table["rows"] = [[row[i] for i in kept] for row in table["rows"]]

    def idle(self):
        return [] if self.sometimes else [p.pattern for p, n in zip(self.lines, self.used) if not n]


def without(pattern, value):
    """The value with no text of the pattern in any of its texts."""
    if isinstance(value, dict):
        return {key: without(pattern, held) for key, held in value.items()}
    if isinstance(value, list):
        return [without(pattern, held) for held in value]
    return pattern.sub("", value) if isinstance(value, str) else value


def load(path):
    with open(path) as file:
        return yaml.safe_load(file) if path.endswith(".yaml") else json.load(file)


def main():
    theirs = load(os.path.join(recorded, "rules.yaml"))
    rules = [Rule(entry) for entry in load(ours)]
    names = sorted(os.listdir(os.path.join(recorded, "golden")))
    played = [name for name in names if os.path.exists(os.path.join(recordings, name))]
    failed = False
    for name in played:
        golden = load(os.path.join(recorded, "golden", name))
        recording = load(os.path.join(recordings, name))
        for rule in rules:
            rule.narrow(recording)
        found = compare.compare(golden, recording, theirs)
        lines = [f"{level} {line}" for level in ("hard", "soft") for line in found[level]]
        left = [line for line in lines if not any(rule.lets_pass(name, line) for rule in rules)]
        hard = [line for line in left if line.startswith("hard")]
        print(f"{name}: {len(hard)} unexplained, {len(lines) - len(left)} by our rules, "
              f"{len(left) - len(hard)} soft")
        for line in left if soft else hard[:LINES_MAX]:
            print("   ", line)
        failed |= bool(hard)
    for rule in rules if played == names else []:
        for pattern in rule.idle():
            print(f"not needed: {pattern} ({rule.why})")
            failed |= not pattern.startswith("^soft")
    sys.exit(failed)


main()
