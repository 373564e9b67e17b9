"""Reference values of classification metrics, from scikit-learn (Debian: python3-sklearn; made with 1.2.1).

    /usr/bin/python3 eng/golden/classification_reports.py > tests/Headroom.Tests/Reports/classification-reports.json

50 random confusion tables of 2 to 12 classes, among them classes without gold rows, classes that are never predicted and classes that are neither.
Averages are those of classification_report(gold, predicted, zero_division=0): over the labels that occur in either.
"""
import json
import random

from sklearn.metrics import accuracy_score, classification_report, precision_recall_fscore_support


def table(rng, k):
    """Counts [gold][predicted]; a diagonal of some strength, some rows and columns emptied."""
    strength, size = rng.choice([0.0, 0.3, 0.8, 1.0]), rng.choice([3, 30, 400])
    counts = [[0] * k for _ in range(k)]
    for gold in range(k):
        for _ in range(rng.randint(1, size)):
            counts[gold][gold if rng.random() < strength else rng.randrange(k)] += 1
    for kind in ("row", "column", "both"):
        if rng.random() < 0.35:
            c = rng.randrange(k)
            for i in range(k):
                if kind != "column":
                    counts[c][i] = 0
                if kind != "row":
                    counts[i][c] = 0
    return counts


def reference(counts):
    k = len(counts)
    gold = [g for g in range(k) for p in range(k) for _ in range(counts[g][p])]
    predicted = [p for g in range(k) for p in range(k) for _ in range(counts[g][p])]
    report = classification_report(gold, predicted, zero_division=0, output_dict=True)
    classes = precision_recall_fscore_support(gold, predicted, labels=list(range(k)), average=None, zero_division=0)
    micro = precision_recall_fscore_support(gold, predicted, average="micro", zero_division=0)

    def average(name):
        return [report[name][key] for key in ("precision", "recall", "f1-score")]

    return {
        "counts": counts,
        "accuracy": accuracy_score(gold, predicted),
        "macro": average("macro avg"),
        "weighted": average("weighted avg"),
        "micro": [float(v) for v in micro[:3]],
        "classes": [[float(classes[0][c]), float(classes[1][c]), float(classes[2][c]), int(classes[3][c])] for c in range(k)],
    }


rng = random.Random(15)
cases = []
while len(cases) < 50:
    counts = table(rng, 2 + len(cases) % 11)
    if sum(map(sum, counts)) > 0:
        cases.append(reference(counts))
print("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]")
